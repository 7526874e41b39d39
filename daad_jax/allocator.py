"""How the C library keeps memory between steps."""

import ctypes
import sys

# malloc.h: M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Lets glibc keep what is freed for the next allocation, for the whole process.

    XLA's CPU backend asks for its buffers anew at every step. By default glibc gives large ones
    back to the kernel, which then clears each page again: a fifth of a step's time at 256 px.
    To be called early: a thread that has allocated before keeps its own arena, which gives large
    buffers back as ever. Memory of the process then never shrinks below its peak.

    Returns:
        Whether there is a glibc and it accepted.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    choices = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1))
    return all([mallopt(option, value) == 1 for option, value in choices])
