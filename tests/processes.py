"""Helpers for tests with child processes that stop at a chosen point."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).parent.parent

# Blocks the process forever at the first audit event argv[1] with an argument that matches the
# pattern argv[2], after printing "paused".
PAUSE = """
import re, sys, threading
def pause(name, arguments):
    if name == sys.argv[1] and any(re.search(sys.argv[2], str(one)) for one in arguments):
        print("paused", flush=True)
        threading.Event().wait()
sys.addaudithook(pause)
"""
# Runs a command with the arguments from argv[3] on.
COMMAND = """
from daad_jax import cli
sys.exit(cli.main(sys.argv[3:]))
"""
# Runs a command, prints "reached" when it comes to a place, and then does what argv[2] says: "ever"
# blocks forever, "line" blocks until a line arrives on stdin, "not" continues. A place (JSON in
# argv[1]) is the count-th time that an audit event matches a path, or that a step begins ("before")
# or ends ("after").
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
from daad_jax import cli
from daad_jax.train import program
build = program.build_program
def build_program(*arguments, **keywords):
    built = build(*arguments, **keywords)
    def step(state, images, key):
        number = int(state.step) + 1
        if (place["event"], place["path"]) == ("before", number):
            reach()
        result = built.step(state, images, key)
        if (place["event"], place["path"]) == ("after", number):
            reach()
        return result
    return built._replace(step=step)
program.build_program = build_program  # before the training loop imports it
sys.exit(cli.main(sys.argv[3:]))
"""
NOWHERE = {"event": "", "path": "", "count": 1}
# Limits the size of files to 4096 bytes, as a full disk would. The compilation cache is disabled
# because JAX would warn that it cannot write it.
LIMIT = """
import os, resource, sys
os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
"""


TINY = (
    "--config.data.image_size=16",
    "--config.data.channels=1",
    "--config.model.widths=(4,8)",
    "--config.memory.division_rates=(2,2,1)",
    "--config.memory.items=8",
    "--config.discriminator.width=4",
    "--config.discriminator.max_width=8",
    "--config.train.log_every=1",
    "--config.score.bootstrap_samples=10",
)


def train_args(root, workdir, *more, setting="ae"):
    """Arguments that train a tiny model on the category "nut" of `root`."""
    return ["train", f"--workdir={workdir}", *config_args(root, *more, setting=setting)]


def config_args(root, *more, setting="ae"):
    """The flags of a tiny config for the category "nut" of `root`."""
    return [
        f"--config={ROOT}/configs/mvtec.py:{setting}",
        f"--config.data.root={root}",
        "--config.data.category=nut",
        *TINY,
        *more,
    ]


@contextlib.contextmanager
def child(*arguments, **variables):
    """Starts ``python -c arguments``; kills it after 10 minutes or when the context ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", *map(os.fspath, arguments)],
        env={**os.environ, "PYTHONPATH": os.fspath(ROOT), **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watchdog = threading.Timer(600, process.kill)
    watchdog.start()
    with process:
        try:
            yield process
        finally:
            watchdog.cancel()
            process.kill()


def reaching(event, path, command, before=""):
    """Starts a command that waits at a place until a line arrives on its stdin."""
    place = json.dumps({"event": event, "path": path, "count": 1})
    return child(before + REACH, place, "line", *command)


def wait_for(process, line):
    """Reads stdout up to a line; fails with the process's stderr if the line does not come."""
    assert f"{line}\n" in iter(process.stdout.readline, ""), process.stderr.read()


def kill(process):
    """Kills a process with SIGKILL."""
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def files_of(folder):
    """The contents of all files below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names_in(folder):
    """The sorted names of a folder's entries."""
    return sorted(path.name for path in folder.iterdir())
