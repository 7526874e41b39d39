import subprocess
import sys

import psutil
import pytest

from daad_jax.runtime import memory

SCRIPT = """
import ctypes, resource, sys, threading
from daad_jax.runtime import memory
if sys.argv[1] == "keep" and not memory.keep_freed_memory():
    sys.exit(7)
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
size = 48 << 20  # fits into the arena of a thread
def use():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pointer = libc.malloc(size)
    ctypes.memset(pointer, 1, size)
    libc.free(pointer)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
faults = []
use()
thread = threading.Thread(target=use)
thread.start()
thread.join()
print(faults[-1])
"""


def page_faults_of_second_use(choice):
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, choice], capture_output=True, text=True, check=False
    )


def test_freed_memory_is_reused_by_another_thread_without_page_faults():
    kept = page_faults_of_second_use("keep")
    if kept.returncode == 7:
        pytest.skip("the C library is not glibc")
    assert int(kept.stdout) < 1000, kept.stderr
    default = page_faults_of_second_use("default")
    assert int(default.stdout) > 10 * int(kept.stdout) + 100


COMMAND = """
import sys, types
def hear(name, arguments):
    if name == "ctypes.dlsym" and arguments[1] == "mallopt":
        print("mallopt")
sys.addaudithook(hear)
from daad_jax import cli
cli.VERBS["begin"] = "prints a word"
sys.modules["daad_jax.cli.begin"] = types.SimpleNamespace(run=lambda argv: print("begin"))
cli.main(["begin"])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has mallopt")
def test_commands_keep_freed_memory_from_the_start():
    result = subprocess.run(
        [sys.executable, "-c", COMMAND], capture_output=True, text=True, check=False
    )
    assert result.stdout.split() == ["mallopt", "begin"], result.stderr


def test_the_available_memory_is_the_smaller_of_the_machine_and_the_container(monkeypatch):
    machine = psutil.virtual_memory()
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: machine._replace(available=1000))
    for container, expected in ((400, 400), (2000, 1000)):
        monkeypatch.setattr(memory, "_available_in_container", lambda value=container: value)
        assert memory.available() == expected


@pytest.mark.parametrize(("outer", "inner"), [("5000", "max"), ("9000", "5000"), ("5000", "9000")])
def test_the_tightest_group_around_this_process_counts(tmp_path, monkeypatch, outer, inner):
    monkeypatch.setattr(memory, "_own_group", lambda: "slice/job")
    for folder, limit in ((tmp_path, outer), (tmp_path / "slice/job", inner)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(limit)
        (folder / "memory.current").write_text("2000")
        (folder / "memory.stat").write_text("anon 1500\ninactive_file 300\n")
    assert memory._available_in_container(tmp_path) == 3300
