"""Compiler options for the networks."""

import functools

import jax
from jax.sharding import Mesh

# By default XLA's CPU backend uses YNNPACK for matrix products, reductions and convolutions. This
# list leaves out convolutions: Eigen computes ours up to twice as fast (docs/performance.md).
CPU_OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": (
        "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
    )
}


def compiler_options(mesh: Mesh) -> dict[str, str] | None:
    """Returns the `compiler_options` of `jax.jit` for the networks; None for XLA's defaults."""
    if mesh.devices.flat[0].platform != "cpu":
        return None
    return _supported_options(mesh.local_devices[0])


@functools.cache
def _supported_options(device: jax.Device) -> dict[str, str] | None:
    """Returns the CPU options, or None if this jaxlib lacks them (they are experimental)."""
    try:
        with jax.default_device(device):
            jax.jit(lambda: 0, compiler_options=CPU_OPTIONS).lower().compile()
    except jax.errors.JaxRuntimeError:
        return None
    return CPU_OPTIONS
