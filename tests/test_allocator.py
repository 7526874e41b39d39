import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, resource, sys
from daad_jax import allocator
if sys.argv[1] == "keep" and not allocator.keep_freed_memory():
    sys.exit(7)
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
size = 256 << 20
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pointer = libc.malloc(size)
    ctypes.memset(pointer, 1, size)
    libc.free(pointer)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults)
"""


def second_time(choice):
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, choice], capture_output=True, text=True, check=False
    )


def test_freed_memory_is_used_again_without_the_kernel():
    kept = second_time("keep")
    if kept.returncode == 7:
        pytest.skip("another C library")
    assert int(kept.stdout) < 1000, kept.stderr
    assert int(second_time("give back").stdout) > 10 * int(kept.stdout) + 100
