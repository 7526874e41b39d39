"""A run that is killed at random points and resumed ends bitwise equal to an undisturbed run."""

import collections
import json
import os
import signal
import time

import jax
import numpy as np
import pytest

from daad_jax.models.build import build_networks
from daad_jax.runtime import sharding
from daad_jax.train.state import restore_state
from daad_jax.workdir.run import load_config
from tests.data.test_folder import make_category
from tests.processes import NOWHERE, REACH, child, names_in, train_args, wait_for

STEPS, PER_EPOCH, SAVED_EVERY = 24, 4, 5
FILES = ("metrics.jsonl", "scores.csv", "evaluation.json", "calibration.json", "report.html")

START = [
    ("open", r"configs/mvtec\.py$"),
    ("open", r"train/good/005\.png$"),
    ("open", r"test/bent/001\.png$"),
    ("open", r"\.(images|config)\.json\.partial$"),
    ("os.rename", r"/(images|config)\.json$"),
    ("open", r"/metrics\.jsonl$"),
]
SAVE = [
    ("open", r"/\d+\.orbax-checkpoint-tmp.*/_METADATA$"),
    ("os.rename", r"checkpoints/\d+$"),
    ("os.rename", r"/\d+/manifest\.json$"),
]
EVALUATION = [
    (event, rf"/{name}")
    for name in (r"\.?reference\.npz", r"\.?calibration\.json", r"\.?scores\.csv")
    for event in ("open", "os.rename")
]
EVALUATION += [("os.rename", r"/evaluation\.json$")]
REPORT = [("open", r"\.report\.html\.partial$"), ("os.rename", r"/report\.html$")]
PHASES = ("start-up", "step", "save", "epoch's edge", "any moment", "evaluation", "report")


def pick_place(phase, done, rng):
    """A place of the phase that a run resumed at step `done` will reach; None if there is none."""
    if phase in ("step", "epoch's edge"):
        at_edge = phase == "epoch's edge"
        ahead = [n for n in range(done + 1, STEPS + 1) if (n % PER_EPOCH == 0) == at_edge]
        if not ahead:
            return None
        event = "after" if at_edge else rng.choice(["before", "after"])
        return {"event": str(event), "path": int(rng.choice(ahead)), "count": 1}
    sites = {"start-up": START, "save": SAVE, "evaluation": EVALUATION, "report": REPORT}
    event, path = sites[phase][rng.integers(len(sites[phase]))]
    saves = sum(n == STEPS or n % SAVED_EVERY == 0 for n in range(done + 1, STEPS + 1))
    if phase == "save" and not saves:
        return None
    count = int(rng.integers(1, saves + 1)) if phase == "save" else 1
    return {"event": event, "path": path, "count": count}


class Harness:
    """Starts the same command repeatedly and interrupts it."""

    def __init__(self, root, cache):
        self._root = root
        self._variables = {
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
            "JAX_COMPILATION_CACHE_DIR": os.fspath(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        self.counts = collections.Counter()

    def start(self, workdir, place, waits):
        more = [
            f"--config.train.steps={STEPS}",
            f"--config.train.checkpoint_every={SAVED_EVERY}",
            "--config.train.batch_size=2",
            "--config.train.average_decay=0.9",
            "--config.data.calibration_fraction=0.2",
        ]
        arguments = train_args(self._root, workdir, *more, setting="daad_plus")
        waiting = "ever" if waits else "not"
        return child(REACH, json.dumps(place), waiting, *arguments, **self._variables)

    def finish(self, workdir):
        """Runs to the end; returns the seconds that took."""
        start = time.monotonic()
        with self.start(workdir, NOWHERE, False) as process:
            _, error = process.communicate()
        assert process.returncode == 0, error
        return time.monotonic() - start

    def end_early(self, workdir, phase, number, rng, seconds):
        """Sends one signal in a phase; False if the run is past that phase or ended before."""
        if phase == "any moment":
            with self.start(workdir, NOWHERE, False) as process:
                time.sleep(rng.uniform(0, seconds))
                process.send_signal(number)
                _, error = process.communicate()
        else:
            place = pick_place(phase, last_checkpoint(workdir), rng)
            if place is None:
                return False
            with self.start(workdir, place, number == signal.SIGKILL) as process:
                wait_for(process, "reached")
                process.send_signal(number)
                _, error = process.communicate()
        allowed = {signal.SIGKILL: (-signal.SIGKILL,), signal.SIGTERM: (75, -signal.SIGTERM)}
        if process.returncode == 0:
            return False
        assert process.returncode in allowed[number], error
        if process.returncode == 75:
            assert error.endswith("; re-run the same command to resume\n"), error
        self.counts[phase, signal.Signals(number).name] += 1
        return True


def last_checkpoint(workdir):
    folder = workdir / "checkpoints"
    names = names_in(folder) if folder.exists() else []
    return max((int(name) for name in names if name.isdigit()), default=0)


def assert_same_end(workdir, undisturbed):
    for name in FILES:
        found = (workdir / name).read_text().replace(os.fspath(workdir), "W")
        assert found == (undisturbed / name).read_text().replace(os.fspath(undisturbed), "W"), name
    with np.load(workdir / "reference.npz") as a, np.load(undisturbed / "reference.npz") as b:
        assert a.files == b.files
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name])
    steps = [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").open()]
    assert steps == list(range(1, STEPS + 1))
    mesh = sharding.make_mesh(jax.devices()[:1])
    config = load_config(workdir)
    networks = build_networks(config)
    states = [restore_state(w, config, networks, mesh) for w in (workdir, undisturbed)]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    jax.tree.map(np.testing.assert_array_equal, *jax.device_get(states))
    kept = names_in(workdir / "checkpoints")  # a preemption saves at a step of its own
    assert (len(kept), kept[-1]) == (2, str(STEPS))
    assert not [name for name in names_in(workdir) if name.endswith(".partial")]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    make_category(folder, "nut")
    return folder


@pytest.fixture(scope="module")
def undisturbed(parts, tmp_path_factory):
    """A finished run, and the folder of its compilation cache."""
    folder = tmp_path_factory.mktemp("undisturbed")
    Harness(parts, folder / "cache").finish(folder / "w")
    return folder / "w", folder / "cache"


def run_rounds(harness, workdir, undisturbed, kills, rng, preemptions=False):
    """Runs of one kill per phase (training phases in random order), each resumed to the end."""
    seconds, killed, rounds = 5.0, 0, 0
    while killed < kills:
        own = workdir / str(rounds)
        phases = [*rng.permutation(PHASES[:5]), *PHASES[5:]][: kills - killed]
        plan = [(str(phase), signal.SIGKILL) for phase in phases]
        if preemptions:
            plan.insert(int(rng.integers(len(plan))), (plan[0][0], signal.SIGTERM))
        for phase, number in plan:
            if harness.end_early(own, phase, number, rng, seconds):
                killed += number == signal.SIGKILL
        seconds = harness.finish(own)
        assert_same_end(own, undisturbed)
        rounds += 1
    return rounds


@pytest.mark.slow
def test_after_five_kills_the_result_is_the_same(parts, undisturbed, tmp_path):
    whole, cache = undisturbed
    harness = Harness(parts, cache)
    rng = np.random.default_rng(5)
    plan = [phase for phase in PHASES if phase not in ("any moment", "report")]
    for phase in plan:
        assert harness.end_early(tmp_path, phase, signal.SIGKILL, rng, 0)
    harness.finish(tmp_path)
    assert_same_end(tmp_path, whole)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [25, 100])
def test_after_many_kills_and_preemptions_the_result_is_the_same(
    parts, undisturbed, tmp_path, kills, capsys
):
    whole, cache = undisturbed
    harness, start = Harness(parts, cache), time.monotonic()
    rounds = run_rounds(harness, tmp_path, whole, kills, np.random.default_rng(kills), True)
    with capsys.disabled():
        minutes = (time.monotonic() - start) / 60
        print(f"\n{kills} kills, {rounds} runs, {minutes:.1f} minutes")
        for phase in PHASES:
            numbers = [harness.counts[phase, name] for name in ("SIGKILL", "SIGTERM")]
            print(f"{phase}: {numbers[0]} SIGKILL, {numbers[1]} SIGTERM")
    for phase in PHASES:
        assert harness.counts[phase, "SIGKILL"] >= 3
