import pytest

from daad_jax import config as config_lib
from daad_jax.reproduction import estimate
from daad_jax.reproduction.items import Run, Subject
from tests.conftest import tiny_config

MACHINE = {"device": "cpu"}


def run(**fields):
    fields = {"data__category": "brick", "data__image_size": 64, **fields}
    return Run(Subject("textures", "brick"), "ae", tiny_config("ae", **fields))


def line(one, seconds, **changed):
    cost = {"train_seconds": seconds, "first_step": 0, "steps": 10}
    config = config_lib.to_dict(one.config)
    return {"config": config, "machine": MACHINE, "cost": cost, **changed}


def test_time_is_measured_or_counted_and_memory_is_the_compilers(monkeypatch):
    monkeypatch.setattr(estimate, "_step_seconds", lambda *_: 0.5)
    long, wide = run(train__steps=100, seed=3), run(train__steps=100, model__widths=(4, 4))
    lines = [line(run(), 20.0), line(run(), 40.0), line(run(), 30.0)]
    lines += [line(wide, 1.0, machine={"device": "other"}), {"config": lines[0]["config"]}]
    found = estimate.estimate([long, wide], lines, MACHINE, lambda _: None)
    assert found[0].seconds == pytest.approx(300.0)  # the median of 2, 3 and 4 s, 100 times
    assert [one.measured for one in found] == [True, False]
    assert found[1].seconds == pytest.approx(50.0)
    assert all(0 < one.gib < 0.1 for one in found)


def test_what_does_not_fit_says_so():
    huge = run(model__widths=(2**14, 2**15))
    (found,) = estimate.estimate([huge], [], MACHINE, lambda _: None)
    assert found.seconds is None
    assert "GiB" in found.problem


def test_epochs_are_counted_in_images():
    one = run(train__steps=None, train__epochs=2)
    counts = {}
    images = estimate._count(one.config, counts)
    assert list(counts.values()) == [images]
    assert images > 8


def test_a_step_is_timed():
    config = run().config
    assert 0 < estimate._step_seconds(estimate._program(config), config) < 60
