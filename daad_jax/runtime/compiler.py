"""Compiler options for the networks, and where compiled programs are kept."""

import functools
import os

import jax
from jax.sharding import Mesh

from daad_jax.errors import warn
from daad_jax.runtime.files import user_path

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


def keep_programs(folder: str | None) -> None:
    """Keeps compiled programs in a folder, so that the next process need not compile them.

    By default the folder is ``daad_jax`` in the user's cache, or what JAX's own variable
    ``JAX_COMPILATION_CACHE_DIR`` says. It holds machine code: only its owner may write there. If it
    cannot be made, a warning says so.
    """
    if folder is None and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "daad_jax")
    if folder is not None:
        path = user_path(folder)
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            warn(f"{path}: compiled programs are not kept ({error.strerror})")
            return
        jax.config.update("jax_compilation_cache_dir", os.fspath(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@functools.cache
def _supported_options(device: jax.Device) -> dict[str, str] | None:
    """Returns the CPU options, or None if this jaxlib lacks them (they are experimental)."""
    try:
        with jax.default_device(device):
            jax.jit(lambda: 0, compiler_options=CPU_OPTIONS).lower().compile()
    except jax.errors.JaxRuntimeError:
        return None
    return CPU_OPTIONS
