"""A run of pictures that are no squares, padded, cut into tiles, with a region left out."""

import json

import numpy as np
import pytest
from PIL import Image

import daad_jax
from daad_jax.cli import main
from daad_jax.evaluation.evaluate import SCORES_FILE
from tests.cli.test_cli import train_args

OPTIONS = [
    "--config.data.image_size=(32,48)",
    "--config.data.fit=pad",
    "--config.data.ignore=0,0,0.5,0.5",
    "--config.data.tile=16",
    "--config.data.calibration_fraction=0.2",
    "--config.score.protocol=calibrated",
    "--config.score.map_sigma=1",
]


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Pictures of 24 x 48 pixels, which fill the middle three quarters of the frame."""
    folder, rng = tmp_path_factory.mktemp("strips"), np.random.default_rng(0)
    pictures = rng.integers(90, 110, (12, 24, 48), dtype=np.uint8)
    for index, picture in enumerate(pictures):
        write(folder / f"strip/{'train' if index < 8 else 'test'}/good/{index}.png", picture)
    mask = np.zeros((24, 48), np.uint8)
    mask[14:20, 30:40] = 255
    for index, picture in enumerate(pictures[:3]):
        write(folder / f"strip/test/spot/{index}.png", np.where(mask > 0, mask, picture))
        write(folder / f"strip/ground_truth/spot/{index}_mask.png", mask)
    return folder


@pytest.mark.slow
def test_such_pictures_train_evaluate_and_are_scored(root, tmp_path, capsys):
    workdir = tmp_path / "w"
    assert main(train_args(root, workdir, *OPTIONS, category="strip")) == 0
    assert main(["evaluate", f"--workdir={workdir}"]) == 0
    captured = capsys.readouterr()
    assert "could not be written" not in captured.err
    summary = json.loads((workdir / "evaluation.json").read_text())
    assert summary["masks"].items() >= {"images": 3, "empty": 0, "defective_pixels": 180}.items()
    assert summary["pixel_auroc"] > 0.5
    assert summary["pseudo"]["defects"] == 8
    rows = (workdir / SCORES_FILE).read_text().splitlines()
    columns = rows[0].split(",")
    files = [root / "strip" / row.split(",")[0] for row in rows[1:]]
    detector = daad_jax.load(workdir)
    result = detector.score(files)
    assert result.anomaly_map.shape == (7, 32, 48)
    assert (result.anomaly_map[:, :4] == 0).all()
    assert (result.anomaly_map[:, 4:16, :24] == 0).all()
    assert (result.anomaly_map[:, 16:28] > 0).all()
    for name in ("R", "L", "A", "R_quantile_relative", "combined"):
        written = [float(row.split(",")[columns.index(name)]) for row in rows[1:]]
        np.testing.assert_allclose(result.scores[name], written, rtol=1e-4, atol=1e-6)
    # What lies in the region changes nothing.
    picture = np.array(Image.open(files[0]))
    other = picture.copy()
    other[:12, :24] = 255
    one, two = (detector.score([pixels]).scores for pixels in (picture, other))
    assert {name: values.tolist() for name, values in one.items()} == {
        name: values.tolist() for name, values in two.items()
    }


@pytest.mark.slow
def test_a_region_cannot_change_after_the_training(root, tmp_path, capsys):
    workdir = tmp_path / "w"
    options = [*OPTIONS, "--config.train.steps=1"]
    assert main(train_args(root, workdir, *options, category="strip", setting="ae")) == 0
    other = "--config.data.ignore=0,0,0.25,0.25"
    assert main(["evaluate", f"--workdir={workdir}", other]) == 2
    assert "was trained on 6 other images" in capsys.readouterr().err
