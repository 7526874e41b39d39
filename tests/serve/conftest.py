"""A small exported file."""

import pytest

from daad_jax.cli import main
from tests.cli.conftest import calibrated_run  # noqa: F401, a fixture


@pytest.fixture(scope="session")
def exported(calibrated_run, tmp_path_factory):  # noqa: F811
    """A file of a run with a threshold, 16 px, grey. Tests must not change it."""
    file = tmp_path_factory.mktemp("exported") / "part.daad"
    assert main(["export", str(calibrated_run), f"--output={file}"]) == 0
    return file
