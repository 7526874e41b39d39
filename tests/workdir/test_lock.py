"""One process at a time in a workdir."""

import concurrent.futures
import errno
import fcntl

import pytest

from daad_jax.errors import CheckpointError
from daad_jax.workdir import lock
from tests.processes import names_in
from tests.workdir.checkpoints import line_of

MESSAGE = "another process trains or evaluates there; wait until it ends or choose"


def test_a_locked_workdir_raises_without_waiting(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(1) as pool, lock.hold(tmp_path):
        waiting = pool.submit(lock.check_free, tmp_path)
        with pytest.raises(CheckpointError, match=MESSAGE):
            waiting.result(timeout=20)
    lock.check_free(tmp_path)
    assert names_in(tmp_path) == [lock.LOCK_FILE]


def test_the_lock_cannot_be_taken_twice(tmp_path):
    with lock.hold(tmp_path), pytest.raises(CheckpointError, match=MESSAGE), lock.hold(tmp_path):
        pass


def test_a_folder_that_does_not_exist_is_free(tmp_path):
    lock.check_free(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_lock_that_waits_is_taken_when_the_other_ends(tmp_path):
    def take():
        with lock.hold(tmp_path, wait=True):
            pass

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with lock.hold(tmp_path):
            waiting = pool.submit(take)
            with pytest.raises(concurrent.futures.TimeoutError):
                waiting.result(timeout=0.5)
        waiting.result(timeout=20)


@pytest.mark.parametrize("system", ["no locks", "no fcntl"])
def test_where_files_cannot_be_locked_there_is_a_warning(tmp_path, system, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    if system == "no locks":
        monkeypatch.setattr(fcntl, "flock", refuse)
    else:
        monkeypatch.setattr(lock, "fcntl", None)
    with lock.hold(tmp_path):
        pass
    assert f"warning: {tmp_path}: cannot lock files there" in line_of(capsys)
