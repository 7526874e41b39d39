import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, resource, sys, threading
from daad_jax import allocator
if sys.argv[1] == "keep" and not allocator.keep_freed_memory():
    sys.exit(7)
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
size = 48 << 20  # an arena of a thread's own would hold it
def use():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pointer = libc.malloc(size)
    ctypes.memset(pointer, 1, size)
    libc.free(pointer)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
faults = []
use()
thread = threading.Thread(target=use)  # takes what this one freed
thread.start()
thread.join()
print(faults[-1])
"""


def second_time(choice):
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, choice], capture_output=True, text=True, check=False
    )


def test_freed_memory_is_used_again_without_the_kernel_whichever_thread_freed_it():
    kept = second_time("keep")
    if kept.returncode == 7:
        pytest.skip("another C library")
    assert int(kept.stdout) < 1000, kept.stderr
    assert int(second_time("give back").stdout) > 10 * int(kept.stdout) + 100


COMMAND = """
import sys
def hear(name, arguments):
    if name == "ctypes.dlsym" and arguments[1] == "mallopt":
        print("asked")
sys.addaudithook(hear)
from daad_jax import cli
cli.run(lambda arguments: print("begins"), ["train.py"])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asked on Linux only")
def test_commands_ask_for_it_before_they_begin():
    command = [sys.executable, "-c", COMMAND]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stdout.split() == ["asked", "begins"], result.stderr
