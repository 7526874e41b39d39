"""What XLA is asked for when it compiles the networks."""

import functools

import jax
from jax.sharding import Mesh

# XLA's CPU backend gives YNNPACK products, reductions and convolutions; this leaves out the last.
# Eigen, which then computes them, is up to twice as fast at ours: docs/performance.md.
_CPU_OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": (
        "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
    )
}


def compiler_options(mesh: Mesh) -> dict[str, str] | None:
    """For `jax.jit` of the networks on a mesh; None where XLA's own choices stand."""
    device = mesh.local_devices[0]
    return _accepted(device) if device.platform == "cpu" else None


@functools.cache
def _accepted(device: jax.Device) -> dict[str, str] | None:
    """The options, unless this jaxlib has them no more: they are experimental."""
    try:
        with jax.default_device(device):
            jax.jit(lambda: 0, compiler_options=_CPU_OPTIONS).lower().compile()
    except jax.errors.JaxRuntimeError:
        return None
    return _CPU_OPTIONS
