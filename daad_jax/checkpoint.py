"""Checkpoints: the state by Orbax, the config beside them as JSON. Only this file imports Orbax.

A workdir holds ``config.json``, ``images.json`` (a fingerprint of the training images),
``checkpoints/<step>``, and what training and evaluation write.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import logging
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from daad_jax import config as config_lib
from daad_jax import manifest, processes
from daad_jax.config import Config
from daad_jax.errors import CheckpointError, ConfigError, SaveError, warn
from daad_jax.manifest import DamagedError
from daad_jax.state import NetworkState, TrainState

CONFIG_FILE = "config.json"
IMAGES_FILE = "images.json"
CHECKPOINTS = "checkpoints"
DAMAGED = "damaged"
_ITEM = "default"  # what Orbax calls the only item of a checkpoint

# Fields that may change between one run of a workdir and the next without changing the result; how
# steps are grouped, where `train.steps_per_dispatch` is above 1, changes its rounding.
_FREE_FIELDS = (
    "data.root",
    "data.memory_limit_mb",
    "data.on_device",
    "data.cache_dir",
    "data.tfds_dir",
    "data.on_bad_file",
    "data.max_bad_files",
    "data.follow_links",
    "train.steps",
    "train.epochs",
    "train.steps_per_dispatch",
    "train.log_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "score.batch_size",
    "score.bootstrap_samples",
)


class Checkpoints:
    """The checkpoints of one workdir; a context manager that waits for the pending save.

    A checkpoint is a folder that Orbax commits by renaming it; then it gets its manifest (see
    `daad_jax.manifest`). One without a manifest, of an older version or a process that was killed
    between the two, is taken if Orbax can restore it.
    """

    def __init__(self, workdir: Path, keep: int | None = None) -> None:
        """Opens the checkpoints of a workdir.

        Args:
            workdir: the run's folder.
            keep: how many checkpoints stay; None to read only, which changes nothing.
        """
        logging.getLogger("absl").setLevel(logging.WARNING)
        logging.getLogger("absl").addFilter(_is_not_of_orbax)
        self._workdir, self._keep = workdir, keep
        self._folder = (workdir / CHECKPOINTS).absolute()
        self._manager: ocp.CheckpointManager | None = None
        self._pending: int | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self._finish()
        except SaveError as failure:
            if error is None:
                raise
            warn(str(failure))
        finally:
            if self._manager is not None:
                self._manager.close()

    def latest_step(self) -> int | None:
        """Returns the step of the last complete checkpoint, sound or not, or None."""
        return max(self._steps(), default=None)

    def save(self, state: TrainState) -> None:
        """Saves the state under its step in the background, once the save before it is done.

        Raises:
            SaveError: if the save before it failed, or this one at once.
        """
        self._finish()
        if not processes.is_first():
            return
        step = int(state.step)
        try:
            if self._manager is None:
                self._manager = self._open()
            self._manager.save(step, args=ocp.args.StandardSave(_to_host(_to_tree(state))))
        except Exception as error:  # Orbax and TensorStore raise many kinds.
            raise self._failure(step, error) from error
        self._pending = step

    def check(self) -> None:
        """Ends the pending save if it is done by now; does not wait for it.

        Raises:
            SaveError: if it failed.
        """
        if self._manager is not None and not self._manager.is_saving_in_progress():
            self._finish()

    def restore(self, shapes: TrainState) -> TrainState:
        """Restores the last sound checkpoint.

        A damaged one is named in a warning and, unless this only reads, moved to ``damaged/``, so
        that its step can be saved again. Who reads while another process saves may see a checkpoint
        being removed; the newest one is then looked for again.

        Args:
            shapes: a state of `jax.ShapeDtypeStruct`s with the shardings to restore to.

        Raises:
            CheckpointError: if there is none, or it holds other arrays than this state.
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
                self._pass_over(other, reason, step)
            return state
        if not damaged:
            raise CheckpointError(
                f"{self._workdir}: no checkpoint to load; train there first with train.py"
            )
        reasons = "; ".join(f"{step}: {reason}" for step, reason in damaged.items())
        raise CheckpointError(
            f"{self._workdir}: no checkpoint is sound ({reasons}); restore one from a copy, or "
            f"remove {self._workdir / CHECKPOINTS} and train anew"
        )

    def _steps(self) -> list[int]:
        names = [path.name for path in self._folder.glob("*") if path.is_dir()]
        return [int(name) for name in names if re.fullmatch(r"0|[1-9]\d*", name)]

    def _open(self) -> ocp.CheckpointManager:
        """Opens the folder for saving; what a killed process left half-saved there is removed."""
        _silence_orbax()
        self._folder.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self._keep,
            create=False,
            cleanup_tmp_directories=True,
            multiprocessing_options=_alone(),
        )
        return ocp.CheckpointManager(self._folder, options=options)

    def _finish(self) -> None:
        if self._manager is None or self._pending is None:
            return
        step, self._pending = self._pending, None
        try:
            self._manager.wait_until_finished()
            manifest.write(self._folder / str(step))
        except Exception as error:  # Orbax and TensorStore raise many kinds.
            raise self._failure(step, error) from error

    def _failure(self, step: int, error: Exception) -> SaveError:
        last = max((other for other in self._steps() if other != step), default=None)
        then = "begins anew" if last is None else f"goes on from step {last}"
        return SaveError(
            f"{self._workdir / CHECKPOINTS / str(step)}: cannot be saved ({_reason(error)}); mend "
            f"that, make room on the disk, and the same command {then}"
        )

    def _pass_over(self, step: int, reason: str, used: int) -> None:
        path = self._folder / str(step)
        message = (
            f"{self._workdir / CHECKPOINTS / str(step)}: {reason}; step {used} is used instead"
        )
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


def _alone() -> ocp.options.MultiprocessingOptions:
    """Lets this process save and restore by itself, without waiting for others."""
    own = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process_{own}"
    )


def _to_host(tree: dict[str, Any]) -> dict[str, Any]:
    """Arrays that lie on several processes' devices as NumPy's; others as they are."""
    return tree if jax.process_count() == 1 else jax.device_get(tree)


def _silence_orbax() -> None:
    """Keeps what Orbax and TensorStore print about a failed save off the terminal: it is raised."""
    logging.getLogger("asyncio").addFilter(_is_not_of_orbax)
    warnings.filterwarnings("ignore", "coroutine 'async_serialize", RuntimeWarning)
    hook = sys.unraisablehook
    if getattr(hook, "func", None) is not _report_unraisable:
        sys.unraisablehook = functools.partial(_report_unraisable, hook)


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    text = record.pathname + logging.Formatter().format(record)  # with the trace, if any
    # A write that nobody waits for any more has no trace of Orbax, but the name of its folder.
    return re.search(r"orbax[/\\-]checkpoint", text) is None


def _report_unraisable(hook: Callable[[Any], object], unraisable: Any) -> None:
    """Leaves out the writes that end after another has failed and the save was given up."""
    if unraisable.object is not None or str(unraisable.exc_value) != "Event loop is closed":
        hook(unraisable)


def _reason(error: Exception) -> str:
    """The cause, without the chain of files and what TensorStore adds in square brackets."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines() or [repr(error)]
    return re.sub(r" \[(os_error|source|tensorstore).*", "", lines[0]).rsplit('": ', 1)[-1]


def _restore(path: Path, shapes: TrainState) -> TrainState:
    """Restores one checkpoint.

    Raises:
        DamagedError: if its files are not what was saved.
        CheckpointError: if they are, and this state cannot be made of them.
    """
    known, wanted = manifest.check(path), _to_tree(shapes)
    try:
        with ocp.StandardCheckpointer(multiprocessing_options=_alone()) as reader:
            difference = _difference(reader.metadata(path / _ITEM).item_metadata.tree, wanted)
            if difference is None:
                return _from_tree(reader.restore(path / _ITEM, wanted), shapes)
    except Exception as error:  # Orbax and TensorStore raise many kinds.
        if not known:
            raise DamagedError(f"cannot be restored ({_reason(error)})") from error
        raise CheckpointError(
            f"{path}: is whole, but cannot be restored ({_reason(error)}); free memory, or install "
            "the versions that wrote it"
        ) from error
    if not known:
        raise DamagedError(difference)
    raise CheckpointError(f"{path}: {difference}; restore {CONFIG_FILE}")


def _difference(stored: Any, wanted: Any) -> str | None:
    """Names the first array that differs in shape between a checkpoint and what a config needs."""
    old, new = _shapes(stored), _shapes(wanted)
    # Parameters come first: whatever else differs, in the optimiser or an average, follows them.
    order = sorted(old | new, key=lambda name: ("/params/" not in name, "average" in name, name))
    for name in order:
        if old.get(name) != new.get(name):
            return (
                f"{name} is {_describe(old.get(name))} in the checkpoint and "
                f"{_describe(new.get(name))} by {CONFIG_FILE}"
            )
    return None


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves
    }


def _describe(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else f"of shape {tuple(shape)}"


def save_config(workdir: Path, config: Config, images: np.ndarray) -> None:
    """Writes ``images.json`` and ``config.json``, each whole or not at all.

    Args:
        workdir: the run's folder, made if it is missing.
        config: the run's.
        images: uint8 ``(n, H, W, C)``, its training images; their fingerprint is kept.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    manifest.write_json(workdir / IMAGES_FILE, _fingerprint(images))
    manifest.write_json(workdir / CONFIG_FILE, config_lib.to_dict(config))


def check_same_images(workdir: Path, images: np.ndarray) -> None:
    """Checks that a run's training images are still the same; a new workdir takes any.

    Raises:
        CheckpointError: if they are not.
    """
    path = workdir / IMAGES_FILE
    if not path.exists():
        return
    try:
        old = json.loads(path.read_text())
        count = old["count"]
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path}: cannot be read; restore it ({error!r})") from error
    if old != _fingerprint(images):
        raise CheckpointError(
            f"{workdir}: was trained on {count} other images than the {len(images)} "
            "that the config leads to now; choose another --workdir or restore the images"
        )


def _fingerprint(images: np.ndarray) -> dict[str, Any]:
    digest = hashlib.blake2b(digest_size=16)
    for start in range(0, len(images), 256):
        digest.update(np.ascontiguousarray(images[start : start + 256]).tobytes())
    return {"count": len(images), "blake2b": digest.hexdigest()}


def load_config(workdir: Path) -> Config:
    """Reads and validates the ``config.json`` of a workdir, as data.

    Raises:
        CheckpointError: if there is none, or it is damaged.
    """
    path = workdir / CONFIG_FILE
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{workdir}: no {CONFIG_FILE} there, so it is not the workdir of a run"
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON; restore it ({error})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: is not a config; restore it")
    try:
        config = config_lib.from_dict(values)
        config_lib.validate(config)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return config


def check_same_run(workdir: Path, config: Config) -> None:
    """Checks that a config may go on with what a workdir holds; a new workdir fits every config.

    Raises:
        CheckpointError: naming the first field that differs.
    """
    if workdir.exists() and not workdir.is_dir():
        raise CheckpointError(f"{workdir}: is a file; give a folder as --workdir")
    if not (workdir / CONFIG_FILE).exists():
        if workdir.is_dir() and (workdir / CHECKPOINTS).exists():
            raise CheckpointError(f"{workdir}: checkpoints without {CONFIG_FILE}; restore it")
        return
    old = config_lib.flatten(config_lib.to_dict(load_config(workdir)))
    new = config_lib.flatten(config_lib.to_dict(config))
    for name, value in new.items():
        if name not in _FREE_FIELDS and old[name] != value:
            raise CheckpointError(
                f"{name}: {value!r} does not fit {workdir}, which was trained with "
                f"{old[name]!r}; choose another --workdir or set it back"
            )


def _to_tree(state: TrainState) -> dict[str, Any]:
    tree: dict[str, Any] = {"step": state.step, "generator": _network_tree(state.generator)}
    if state.discriminator is not None:
        tree["discriminator"] = _network_tree(state.discriminator)
    if state.average is not None:
        generator, discriminator = state.average
        tree["average"] = {"generator": generator}
        if discriminator is not None:
            tree["average"]["discriminator"] = discriminator
    return tree


def _network_tree(network: NetworkState) -> dict[str, Any]:
    """A network's arrays; the state of a memory only where there is any, as format 1 has none."""
    return {name: part for name, part in vars(network).items() if name != "memory" or part}


def _from_tree(tree: dict[str, Any], shapes: TrainState) -> TrainState:
    generator = dataclasses.replace(shapes.generator, **tree["generator"])
    discriminator = shapes.discriminator
    if discriminator is not None:
        discriminator = dataclasses.replace(discriminator, **tree["discriminator"])
    average = shapes.average
    if average is not None:
        average = (tree["average"]["generator"], tree["average"].get("discriminator"))
    return TrainState(jax.numpy.asarray(tree["step"]), generator, discriminator, average)
