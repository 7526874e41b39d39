"""Saves that fail, as on a full disk."""

import contextlib
import resource
import time

import pytest

from daad_jax.errors import SaveError
from daad_jax.workdir.checkpoint import Checkpoints
from tests.processes import files_of
from tests.workdir.checkpoints import restore, save, state


@contextlib.contextmanager
def file_size_limit(size):
    """Makes writes beyond `size` bytes of a file fail, as a full disk would."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def save_on_a_full_disk(workdir, then):
    with file_size_limit(4096), Checkpoints(workdir, 1) as checkpoints:
        checkpoints.save(state(4))
        then(checkpoints)


def fail_at_check(checkpoints):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        checkpoints.check()
    pytest.fail("no check has raised an error")


def fail_at_next_save(checkpoints):
    checkpoints.save(state(6))


def fail_at_exit(checkpoints):
    pass


@pytest.mark.parametrize("fail", [fail_at_check, fail_at_next_save, fail_at_exit])
def test_a_failed_save_is_one_error_and_the_older_checkpoint_stays(tmp_path, fail):
    save(tmp_path, 2)
    before = files_of(tmp_path)
    message = "checkpoints/4: cannot be saved .*(F|f)ile too large.* to resume from step 2"
    with pytest.raises(SaveError, match=message) as caught:
        save_on_a_full_disk(tmp_path, fail)
    assert "\n" not in str(caught.value)
    assert before.items() <= files_of(tmp_path).items()
    assert restore(tmp_path) == 2
    save(tmp_path, 4, keep=1)
    assert restore(tmp_path) == 4


def test_the_first_save_that_fails_says_that_training_starts_from_the_beginning(tmp_path):
    with pytest.raises(SaveError, match="the same command to start from the beginning"):
        save_on_a_full_disk(tmp_path, fail_at_exit)


def test_a_failed_save_does_not_hide_another_exception(tmp_path, capsys):
    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_on_a_full_disk(tmp_path, interrupt)
    assert f"warning: {tmp_path}/checkpoints/4: cannot be saved" in capsys.readouterr().err
