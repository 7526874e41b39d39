"""A finished run with a threshold, shared by the tests of `predict` and `calibrate`."""

import pytest

from daad_jax.cli import main
from tests.data.test_folder import make_category
from tests.processes import train_args


@pytest.fixture(scope="session")
def calibrated_run(tmp_path_factory):
    """The workdir of a run that held out two good pictures. Tests must not change it."""
    folder = tmp_path_factory.mktemp("calibrated")
    make_category(folder / "parts")
    settings = ["--config.data.calibration_fraction=0.2", "--config.score.protocol=calibrated"]
    steps = ["--config.train.steps=3", "--config.train.batch_size=8"]
    assert main(train_args(folder / "parts", folder / "w", *settings, *steps)) == 0
    return folder / "w"
