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


def _available_in_container(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Returns the bytes left in the control group of this process and in those around it.

    `groups` is where they are mounted (version 2). Returns `sys.maxsize` if none has a limit.
    """
    inner = groups / _own_group()
    around = [inner, *inner.parents]
    return min(_available_in(group) for group in around[: around.index(groups) + 1])


def _own_group() -> str:
    """The control group of this process, relative to where groups are mounted."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return ""
    return next((line[3:].strip("/") for line in lines if line.startswith("0::")), "")


def _available_in(group: Path) -> int:
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return sys.maxsize
    return limit - used + int(statistics.get("inactive_file", 0))
