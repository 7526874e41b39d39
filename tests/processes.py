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
# As `train.py` or another command; says "reached" at the n-th passage of a place, which an audit
# event and a path, or a step's number, name. There it stays for good, until a line comes, or not.
REACH = """
import json, os, re, sys, threading
place, stay = json.loads(sys.argv[1]), sys.argv[2]
if stay != "line" and hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
left = [place["count"]]
def reach():
    left[0] -= 1
    if left[0] == 0:
        print("reached", flush=True)
        if stay == "ever":
            threading.Event().wait()
        if stay == "line":
            sys.stdin.readline()
def hear(name, arguments):
    if name == place["event"] and any(re.search(str(place["path"]), str(a)) for a in arguments):
        reach()
sys.addaudithook(hear)
from daad_jax import cli, grid, training
build = training.build_program
def build_program(*arguments):
    program = build(*arguments)
    def watched(run):
        def step(state, images, key):
            number = int(state.step) + 1
            if (place["event"], place["path"]) == ("before", number):
                reach()
            result = run(state, images, key)
            if (place["event"], place["path"]) == ("after", number):
                reach()
            return result
        return step
    several = lambda count: watched(program.several(count))
    return program._replace(step=watched(program.step), several=several)
training.build_program = build_program
mains = {"train.py": cli.train_main, "eval.py": cli.eval_main, "grid.py": grid.main}
sys.exit(cli.run(mains[sys.argv[3]], sys.argv[3:]))
"""


@contextlib.contextmanager
def child(*arguments, **variables):
    """A process of its own, which does not outlive the test."""
    process = subprocess.Popen(
        [sys.executable, "-c", *map(os.fspath, arguments)],
        env={**os.environ, "PYTHONPATH": os.fspath(ROOT), **variables},
        stdin=subprocess.PIPE,
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
