"""``predictions.csv``: rows, half-written rows, another threshold, another model."""

import csv
import dataclasses

import numpy as np
import pytest

from daad_jax.config import Config
from daad_jax.errors import CheckpointError, DataError
from daad_jax.scoring import calibration as calibration_lib
from daad_jax.scoring.predictions import COLUMNS, Predictions
from daad_jax.scoring.stream import Decoded
from tests.scoring.test_calibration import SETTINGS, raw_scores

BROKEN = 'a,\n"b".png'


@dataclasses.dataclass
class FakeDetector:
    """Scores a picture by its mean."""

    calibration: object
    fingerprint: str = "weights"
    config: Config = dataclasses.field(default_factory=Config)

    def score_prepared(self, pixels):
        return dataclasses.make_dataclass("Result", ["decision_score"])(pixels.mean((1, 2, 3)))


@pytest.fixture
def detector():
    return FakeDetector(calibration_lib.calibrate(raw_scores(30), 7, SETTINGS, None))


def decoded(*names, first=0):
    pixels = np.zeros((len(names), 2, 2, 1)) + np.arange(first, first + len(names)).reshape(
        -1, 1, 1, 1
    )
    return Decoded([*names, BROKEN], {BROKEN: "is\nbroken"}, pixels)


def write(folder, detector, *batches):
    predictions = Predictions(folder, detector)
    for batch in batches:
        predictions.append(batch)
    predictions.close()
    return predictions


def read(folder):
    with (folder / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_file_has_a_row_in_order(tmp_path, detector):
    write(tmp_path, detector, decoded("x.png", "y.png"), Decoded(["z"], {"z": "no"}, None))
    rows = read(tmp_path)
    assert tuple(rows[0]) == COLUMNS
    assert [row["path"] for row in rows] == ["x.png", "y.png", BROKEN, "z"]
    assert [row["score"] for row in rows] == ["0.0", "1.0", "", ""]
    assert [row["defective"] for row in rows] == ["0", "1", "", ""]
    assert [row["error"] for row in rows] == ["", "", r"is\nbroken", "no"]
    assert float(rows[0]["p_value"]) == 1.0
    assert float(rows[1]["p_value"]) == 1 / 31
    assert float(rows[0]["calibrated_score"]) < 0 < 1 < float(rows[1]["calibrated_score"])


def test_a_file_cut_anywhere_goes_on_without_the_half_row(tmp_path, detector):
    write(tmp_path, detector, decoded("x.png", "y.png"))
    path = tmp_path / "predictions.csv"
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        predictions = Predictions(tmp_path, detector)
        done = predictions.done
        assert done <= {"x.png", "y.png", BROKEN}
        left = [name for name in ("x.png", "y.png") if name not in done]
        pixels = np.array([{"x.png": 0.0, "y.png": 1.0}[name] for name in left])
        if BROKEN not in done:
            batch = Decoded([*left, BROKEN], {BROKEN: "is\nbroken"}, None)
            predictions.append(batch._replace(pixels=pixels.reshape(-1, 1, 1, 1) if left else None))
        predictions.close()
        assert path.read_bytes() == whole, length


def test_another_threshold_decides_the_rows_anew(tmp_path, detector):
    assert not write(tmp_path, detector, decoded("x.png", "y.png")).decided_anew
    changed = dataclasses.replace(
        detector, calibration=calibration_lib.with_threshold(detector.calibration, 2.0)
    )
    predictions = write(tmp_path, changed, decoded("u.png", "v.png", first=2))
    assert predictions.decided_anew
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    write(fresh, changed, decoded("x.png", "y.png"), decoded("u.png", "v.png", first=2))
    assert read(tmp_path) == read(fresh)
    assert not write(tmp_path, changed).decided_anew


def test_rows_of_another_model_are_refused(tmp_path, detector):
    write(tmp_path, detector, decoded("x.png"))
    before = (tmp_path / "predictions.csv").read_bytes()
    message = "was made by another model or other score settings; choose another --output"
    config = Config()
    config.score.gamma = 0.5
    for other in ({"fingerprint": "others"}, {"config": config}, {"calibration": None}):
        with pytest.raises(CheckpointError, match=message):
            Predictions(tmp_path, dataclasses.replace(detector, **other))
    assert (tmp_path / "predictions.csv").read_bytes() == before
    (tmp_path / "predictions.json").unlink()
    with pytest.raises(CheckpointError, match=r"predictions\.json: cannot be read"):
        Predictions(tmp_path, detector)


def test_the_batch_size_may_change(tmp_path, detector):
    write(tmp_path, detector, decoded("x.png"))
    detector.config.score.batch_size = 1
    assert write(tmp_path, detector).done == {"x.png", BROKEN}


@pytest.mark.parametrize("text", ["a,b\r\n", ",".join(COLUMNS) + "\r\nx,abc,,,,\r\n"])
def test_a_damaged_file_is_named(tmp_path, detector, text):
    write(tmp_path, detector)
    (tmp_path / "predictions.csv").write_text(text)
    with pytest.raises(DataError, match=r"predictions\.csv: line \d cannot be read"):
        Predictions(tmp_path, detector)


def test_the_summary_counts_all_and_keeps_the_worst(tmp_path, detector):
    names = [f"{index}.png" for index in range(20)]
    predictions = write(tmp_path, detector, decoded(*names))
    summary = predictions.summarize(3)
    assert (summary.pictures, summary.defective, summary.broken) == (21, 19, 1)
    assert [row.path for row in summary.worst] == ["19.png", "18.png", "17.png"]
    assert [row.path for row in summary.first_broken] == [BROKEN]
    assert len(predictions.summarize(None).worst) == 20


def test_without_calibration_there_are_scores_alone(tmp_path, detector):
    predictions = write(tmp_path, dataclasses.replace(detector, calibration=None), decoded("x.png"))
    assert predictions.summarize(1).defective is None
    assert list(read(tmp_path)[0].values()) == ["x.png", "0.0", "", "", "", ""]
