"""Real processes that a test can stop at a given place, and what they leave behind."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

# Stops the process's thread for good where an audit event names a path that fits, and says so.
PAUSE = """
import re, sys, threading
def pause(name, arguments):
    if name == sys.argv[1] and any(re.search(sys.argv[2], str(one)) for one in arguments):
        print("paused", flush=True)
        threading.Event().wait()
sys.addaudithook(pause)
"""
TRAIN = """
from daad_jax import cli
sys.exit(cli.run(cli.train_main, sys.argv[3:]))
"""


@contextlib.contextmanager
def child(*arguments, **variables):
    """A process of its own, which does not outlive the test."""
    process = subprocess.Popen(
        [sys.executable, "-c", *map(os.fspath, arguments)],
        env={**os.environ, "PYTHONPATH": os.fspath(ROOT), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process, line):
    assert f"{line}\n" in iter(process.stdout.readline, ""), process.stderr.read()


def kill(process):
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())
