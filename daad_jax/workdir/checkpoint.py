"""Checkpoints of a run, written by Orbax. Only this file imports Orbax.

A checkpoint is the folder ``checkpoints/<step>``. Orbax writes it under a temporary name and
renames it when it is complete. Then its arrays are opened again, it gets its manifest, and older
checkpoints are removed.
"""

import contextlib
import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp

from daad_jax.errors import CheckpointError, SaveError, warn
from daad_jax.runtime import processes
from daad_jax.workdir import manifest
from daad_jax.workdir.manifest import DamagedError

CHECKPOINTS = "checkpoints"
DAMAGED = "damaged"
_TEMPORARY = ".orbax-checkpoint-tmp"  # part of the name of a checkpoint that is being written
_PLAIN = re.compile(rf"[\w .,:+=@~{re.escape(os.sep)}-]*", re.ASCII)

State = TypeVar("State")  # a pytree of arrays; that of `save` has an integer scalar `step`
Shapes = dict[str, tuple[int, ...]]  # of the arrays of a state, by name


class Checkpoints:
    """The checkpoints of one workdir, as a context manager. Leaving it waits for the pending save.

    A checkpoint without a manifest is used if Orbax can restore it. The process was killed before
    it wrote the manifest.
    """

    def __init__(self, workdir: Path, keep: int | None = None) -> None:
        """Opens the checkpoints of a workdir.

        `keep` says how many checkpoints to keep. None opens them read-only.
        """
        self._workdir, self._keep = workdir, keep
        self._folder = (workdir / CHECKPOINTS).absolute()
        self._writer: ocp.StandardCheckpointer | None = None
        self._pending: tuple[int, Shapes] | None = None
        self._alias = contextlib.ExitStack()  # holds the link that the pending save writes through

    def __enter__(self) -> "Checkpoints":
        with _plain_name(self._folder):
            return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self._finish()
        except SaveError as failure:
            if error is None:
                raise
            warn(str(failure))
        finally:
            if self._writer is not None:
                self._writer.close()

    def latest_step(self) -> int | None:
        """Returns the step of the newest checkpoint, damaged or not, or None if there is none."""
        return max(self._steps(), default=None)

    def save(self, state: Any) -> None:
        """Waits for the pending save, then starts to save a state in the background.

        With several processes this is a collective call: each writes its part of the arrays.

        Raises SaveError if the pending save failed, or this one failed at once.
        """
        self._finish()
        step = int(state.step)
        try:
            if self._writer is None:
                self._writer = self._open()
            folder = self._alias.enter_context(_plain_name(self._folder))
            self._writer.save(folder / str(step), state)
        except Exception as error:  # Orbax and TensorStore raise many kinds.
            self._alias.close()
            raise self._failure(step, error) from error
        self._pending = step, _shapes(state)

    def check(self) -> None:
        """Completes the pending save if it has ended. Does not wait for it.

        Raises SaveError if the save failed.
        """
        if self._writer is None or self._pending is None:
            return
        try:
            self._writer.check_for_errors()
        except Exception as error:  # Orbax and TensorStore raise many kinds.
            step, self._pending = self._pending[0], None
            self._alias.close()
            raise self._failure(step, error) from error
        if (self._folder / str(self._pending[0])).exists():
            self._finish()

    def restore(self, shapes: State) -> State:
        """Restores the newest sound checkpoint.

        `shapes` is the state with `jax.ShapeDtypeStruct` leaves, whose shardings say where to place
        the arrays. A damaged checkpoint is reported in a warning. Unless these checkpoints are
        read-only it is moved to ``damaged/``, so that its step can be saved again. If another
        process removes a checkpoint during the call, the newest one is looked up again.

        Raises CheckpointError if there is no sound checkpoint, or it holds other arrays.
        """
        damaged: dict[int, str] = {}
        steps = self._steps()
        for step in sorted(steps, reverse=True):
            try:
                state = _restore(self._folder / str(step), shapes)
            except (DamagedError, CheckpointError) as error:
                if sorted(self._steps()) != sorted(steps):
                    return self.restore(shapes)
                if isinstance(error, CheckpointError):
                    raise
                damaged[step] = str(error)
                continue
            for other, reason in damaged.items():
                self._report_damage(other, reason, step)
            return state
        if not damaged:
            raise CheckpointError(f"{self._workdir}: no checkpoint to load; train there first")
        reasons = "; ".join(f"{step}: {reason}" for step, reason in damaged.items())
        raise CheckpointError(
            f"{self._workdir}: every checkpoint is damaged ({reasons}); restore one from a backup, "
            f"or remove {self._workdir / CHECKPOINTS} to train from the beginning"
        )

    def _steps(self) -> list[int]:
        names = [path.name for path in self._folder.glob("*") if path.is_dir()]
        return [int(name) for name in names if re.fullmatch(r"0|[1-9]\d*", name)]

    def _open(self) -> ocp.StandardCheckpointer:
        """Opens the folder for saving. Removes what a killed process left half-written."""
        processes.in_first(self._clean)
        return ocp.StandardCheckpointer()

    def _clean(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in self._folder.iterdir():
            if _TEMPORARY in path.name:
                shutil.rmtree(path)

    def _finish(self) -> None:
        """Waits for the pending save, reads it back, writes its manifest, removes old ones."""
        if self._writer is None or self._pending is None:
            return
        (step, shapes), self._pending = self._pending, None
        try:
            with self._alias:
                self._writer.wait_until_finished()
            if not processes.is_first():
                return
            _read_back(self._folder / str(step), shapes)
            manifest.write(self._folder / str(step))
            for old in sorted(self._steps())[: -self._keep if self._keep else None]:
                shutil.rmtree(self._folder / str(old))
        except Exception as error:  # Orbax and TensorStore raise many kinds.
            raise self._failure(step, error) from error

    def _failure(self, step: int, error: Exception) -> SaveError:
        last = max((other for other in self._steps() if other != step), default=None)
        start = "start from the beginning" if last is None else f"resume from step {last}"
        return SaveError(
            f"{self._workdir / CHECKPOINTS / str(step)}: cannot be saved ({_reason(error)}); fix "
            f"the cause, for example free disk space, and re-run the same command to {start}"
        )

    def _report_damage(self, step: int, reason: str, used: int) -> None:
        path = self._workdir / CHECKPOINTS / str(step)
        message = f"{path}: damaged: {reason}; using step {used} instead"
        if self._keep is not None:
            message += f"; moved to {self._move_aside(path)}"
        warn(message)

    def _move_aside(self, path: Path) -> Path:
        folder = self._workdir / DAMAGED
        folder.mkdir(exist_ok=True)
        names = (f"{path.name}-{count}" for count in itertools.count(1))
        target = next(folder / name for name in names if not (folder / name).exists())
        path.rename(target)
        return target


def _this_process() -> ocp.options.MultiprocessingOptions:
    """Makes Orbax restore in this process alone, without waiting for others."""
    own = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process_{own}"
    )


def _restore(path: Path, shapes: State) -> State:
    """Restores one checkpoint.

    Raises DamagedError if its files are not those that were saved. Raises CheckpointError if its
    files are sound but do not fit `shapes` or cannot be restored.
    """
    known = manifest.check(path)
    try:
        with _reading(path) as (reader, folder, stored):
            difference = _difference(stored, _shapes(shapes), "by config.json")
            if difference is None:
                return reader.restore(folder, shapes)
    except Exception as error:  # Orbax and TensorStore raise many kinds.
        if not known:
            raise DamagedError(f"cannot be restored ({_reason(error)})") from error
        raise CheckpointError(
            f"{path}: is complete but cannot be restored ({_reason(error)}); free memory, or "
            "install the package versions that wrote it"
        ) from error
    if not known:
        raise DamagedError(difference)
    raise CheckpointError(f"{path}: {difference}; restore config.json")


def _read_back(path: Path, shapes: Shapes) -> None:
    """Opens every array of a checkpoint. Raises an exception if one is missing or differs."""
    with _reading(path) as (_, _, stored):
        if difference := _difference(stored, shapes, "in training"):
            raise ValueError(difference)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[tuple[ocp.StandardCheckpointer, Path, Shapes]]:
    """Yields a reader, the checkpoint's name for it, and the shapes of the stored arrays."""
    with (
        _plain_name(path.parent) as parent,
        ocp.StandardCheckpointer(multiprocessing_options=_this_process()) as reader,
    ):
        folder = parent / path.name
        metadata = reader.metadata(folder).item_metadata
        if metadata is None:
            raise ValueError("its arrays cannot be found")
        yield reader, folder, _shapes(metadata.tree)


@contextlib.contextmanager
def _plain_name(folder: Path) -> Iterator[Path]:
    """Yields the folder or, if its name is unusual, a temporary link to it.

    Orbax takes a path for a pattern, and TensorStore takes only UTF-8.
    """
    if _PLAIN.fullmatch(os.fspath(folder)):
        yield folder
        return
    temporary = tempfile.gettempdir()
    if not _PLAIN.fullmatch(temporary):
        raise CheckpointError(
            f"{folder}: Orbax cannot use a folder of this name, nor a link to it in {temporary}; "
            "choose another --workdir, or set TMPDIR to a folder with a plain name"
        )
    with tempfile.TemporaryDirectory(prefix="daad_jax-") as private:
        link = Path(private, folder.name)
        link.symlink_to(folder, target_is_directory=True)
        yield link


def _difference(old: Shapes, new: Shapes, where: str) -> str | None:
    """Describes the first array that a checkpoint and a state do not share, or returns None."""
    # Parameters first: differences in the optimiser or the averages follow from theirs.
    order = sorted(old | new, key=lambda name: ("/params/" not in name, "average" in name, name))
    for name in order:
        if old.get(name) != new.get(name):
            return (
                f"{name} is {_describe(old.get(name))} in the checkpoint and "
                f"{_describe(new.get(name))} {where}"
            )
    return None


def _shapes(tree: Any) -> Shapes:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves
    }


def _describe(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else f"of shape {tuple(shape)}"


def _reason(error: Exception) -> str:
    """Returns the cause alone, without the file chain and details that TensorStore appends."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines() or [repr(error)]
    return re.sub(r" \[(os_error|source|tensorstore).*", "", lines[0]).rsplit('": ', 1)[-1]
