"""DAAD, *Divide-and-Assemble: Learning Block-wise Memory for Unsupervised Anomaly Detection*.

``daad_jax.load(workdir).score(images)`` scores pictures with a trained run; the parts are plain
functions and Flax modules in the submodules.
"""

from daad_jax.scoring import Detector, Result, load

__all__ = ["Detector", "Result", "load"]
