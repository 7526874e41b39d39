"""The metrics of a run: checks, files, and reading them back."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from daad_jax.errors import NonFiniteError, SaveError
from daad_jax.train.health import HealthCheck, finiteness
from daad_jax.train.metrics_log import METRICS_FILE, TENSORBOARD, MetricsLog, read_metrics
from daad_jax.workdir.logs import TIMINGS_FILE
from tests.workdir.test_tensorboard import read_events, shown_steps

GOOD = finiteness(("features", {"a": np.ones(2)}))
BAD = finiteness(("features", {"a": np.ones(2), "b": np.full(2, np.nan)}))
NAN = float("nan")


def open_log(folder, step=0, every=1):
    return MetricsLog(folder, step, every=every, batch_size=8, health=HealthCheck({}))


def values_of(step):
    return {"loss/rec": jnp.float32(step), "loss/adv": jnp.float32(2 * step)}


def test_only_every_nth_step_is_written_and_the_newest_is_returned(tmp_path):
    with open_log(tmp_path, every=2) as log:
        for step in range(1, 6):
            log.add(step, values_of(step), GOOD)
        assert log.flush(lap=True) == {"loss/rec": 5.0, "loss/adv": 10.0}
        assert log.flush() == {"loss/rec": 5.0, "loss/adv": 10.0}  # nothing new
    columns = read_metrics(tmp_path)
    assert set(columns) == {"step", "loss/rec", "loss/adv"}
    np.testing.assert_array_equal(columns["step"], [2, 4])
    np.testing.assert_array_equal(columns["loss/adv"], [4, 8])
    (line,) = (tmp_path / TIMINGS_FILE).read_text().splitlines()
    assert json.loads(line)["step"] == 5


def test_resuming_writes_no_step_twice(tmp_path):
    for start, end in ((0, 9), (4, 8), (8, 12)):
        with open_log(tmp_path, start, every=2) as log:
            for step in range(start + 1, end + 1):
                log.add(step, values_of(step), GOOD)
            log.flush()
            log.sync()
            # A killed run does not close its log, so synced events have to be on the disk now.
            assert shown_steps(read_events(tmp_path / TENSORBOARD))[-1] == end - end % 2
    assert shown_steps(read_events(tmp_path / TENSORBOARD)) == [2, 4, 6, 8, 10, 12]
    np.testing.assert_array_equal(read_metrics(tmp_path)["step"], [2, 4, 6, 8, 10, 12])


def test_the_first_bad_step_is_named_and_written_though_it_is_not_due(tmp_path):
    with open_log(tmp_path, every=10) as log:
        log.add(1, values_of(1), GOOD)
        log.add(2, values_of(2) | {"loss/adv": jnp.float32(NAN)}, BAD)
        log.add(3, values_of(NAN), BAD)
        with pytest.raises(NonFiniteError, match="^step 2: features/b is not finite"):
            log.flush()
    columns = read_metrics(tmp_path)
    np.testing.assert_array_equal(columns["step"], [2])
    np.testing.assert_array_equal(columns["loss/adv"], [NAN])
    assert '"nan"' in (tmp_path / METRICS_FILE).read_text()  # JSON has no NaN


def test_a_metric_that_is_not_finite_is_named_where_all_tensors_are():
    log = open_log(None)
    log.add(1, {"loss/rec": jnp.float32(1), "gradient_norm/generator": jnp.float32(np.inf)}, GOOD)
    with pytest.raises(NonFiniteError, match="step 1: gradient_norm/generator is not finite"):
        log.flush()


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_log(None) as log:
        log.add(1, values_of(1), GOOD)
        log.wait(1.0)
        assert log.flush(lap=True)["loss/rec"] == 1.0
        log.sync()
        log.warn_of_slow_data()
    assert not any(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_a_save_error(tmp_path):
    (tmp_path / TENSORBOARD).write_text("a file")
    with pytest.raises(SaveError, match=r"tensorboard: cannot be written"):
        open_log(tmp_path)


def test_damaged_lines_and_missing_files_are_left_out(tmp_path):
    assert read_metrics(tmp_path) == {}
    lines = ['{"step": 1, "a": 1.0}', "\xff", '{"step": 2, "b": "inf"}', '{"step": 3, "a"']
    (tmp_path / METRICS_FILE).write_text("\n".join(lines), encoding="latin-1")
    columns = read_metrics(tmp_path)
    np.testing.assert_array_equal(columns["step"], [1, 2])
    np.testing.assert_array_equal(columns["a"], [1, NAN])
    np.testing.assert_array_equal(columns["b"], [NAN, np.inf])
