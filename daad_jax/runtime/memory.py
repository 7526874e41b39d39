"""Host memory: how much is available, and how the C library reuses it."""

import ctypes
import sys
from pathlib import Path

import psutil

# Options of mallopt, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def available() -> int:
    """Returns how many bytes this process can still allocate.

    This is the smaller of the machine's available memory and what the control group of this
    process (its container) allows.
    """
    return min(psutil.virtual_memory().available, _available_in_container())


def keep_freed_memory() -> bool:
    """Makes glibc keep freed memory for later allocations instead of returning it to the kernel.

    XLA's CPU backend allocates its buffers anew at every step. By default glibc returns large
    buffers to the kernel, which clears each page before it is used again; at 256 px that takes a
    fifth of a step's time. The memory of the process then never shrinks below its peak.

    Call this early: a thread that has already allocated memory keeps its own arena, to which the
    setting does not apply. Returns True if glibc is in use and accepted the settings.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    choices = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1))
    return all([mallopt(option, value) == 1 for option, value in choices])


def _available_in_container() -> int:
    """Returns the bytes left in this control group; `sys.maxsize` if it has no limit."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return sys.maxsize
    return limit - used + int(statistics.get("inactive_file", 0))
