"""How much memory the machine, or this process's container, can still give."""

import sys
from pathlib import Path

import psutil


def available() -> int:
    """Bytes that this process may still take."""
    return min(psutil.virtual_memory().available, _container_memory())


def _container_memory() -> int:
    """What this process's control group may still take; no bound where there is no such limit."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return sys.maxsize
    return limit - used + int(statistics.get("inactive_file", 0))
