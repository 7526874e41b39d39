"""Checkpoints: the state by Orbax, the config beside them as JSON. Only this file imports Orbax.

A workdir holds ``config.json``, ``images.json`` (a fingerprint of the training images),
``checkpoints/<step>``, and what training and evaluation write.
"""

import dataclasses
import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from daad_jax import config as config_lib
from daad_jax.config import Config
from daad_jax.errors import CheckpointError, ConfigError
from daad_jax.state import TrainState

CONFIG_FILE = "config.json"
IMAGES_FILE = "images.json"
CHECKPOINTS = "checkpoints"

# Fields that may change between one run of a workdir and the next without changing the result.
_FREE_FIELDS = (
    "data.root",
    "data.memory_limit_mb",
    "data.cache_dir",
    "data.tfds_dir",
    "data.on_bad_file",
    "data.max_bad_files",
    "data.follow_links",
    "train.steps",
    "train.epochs",
    "train.log_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "score.batch_size",
    "score.bootstrap_samples",
)


class Checkpoints:
    """The checkpoints of one workdir; a context manager that waits for pending saves."""

    def __init__(self, workdir: Path, keep: int = 1) -> None:
        """Opens the checkpoints of a workdir.

        Args:
            workdir: the run's folder.
            keep: how many checkpoints stay.
        """
        logging.getLogger("absl").setLevel(logging.WARNING)
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._workdir = workdir
        self._manager = ocp.CheckpointManager((workdir / CHECKPOINTS).absolute(), options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    def latest_step(self) -> int | None:
        """Returns the step of the last complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState) -> None:
        """Saves the state under its step, in the background."""
        self._manager.save(int(state.step), args=ocp.args.StandardSave(_to_tree(state)))

    def restore(self, shapes: TrainState) -> TrainState:
        """Restores the last checkpoint.

        Args:
            shapes: a state of `jax.ShapeDtypeStruct`s with the shardings to restore to.

        Raises:
            CheckpointError: if there is none, or it cannot be read into this state.
        """
        step = self.latest_step()
        if step is None:
            raise CheckpointError(
                f"{self._workdir}: no checkpoint to load; train there first with train.py"
            )
        try:
            tree = self._manager.restore(step, args=ocp.args.StandardRestore(_to_tree(shapes)))
        except Exception as error:  # Orbax and TensorStore raise many kinds.
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise CheckpointError(
                f"{self._workdir / CHECKPOINTS / str(step)}: cannot be restored ({reason}); "
                "remove it to fall back on an earlier one"
            ) from error
        return _from_tree(tree, shapes)


def save_config(workdir: Path, config: Config, images: np.ndarray) -> None:
    """Writes ``images.json`` and ``config.json``, each whole or not at all.

    Args:
        workdir: the run's folder, made if it is missing.
        config: the run's.
        images: uint8 ``(n, H, W, C)``, its training images; their fingerprint is kept.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    _write_json(workdir / IMAGES_FILE, _fingerprint(images))
    _write_json(workdir / CONFIG_FILE, config_lib.to_dict(config))


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
    except ValueError as error:
        raise CheckpointError(f"{path}: cannot be read as JSON; restore it ({error})") from error
    if old != _fingerprint(images):
        raise CheckpointError(
            f"{workdir}: was trained on {old.get('count')} other images than the {len(images)} "
            "that the config leads to now; choose another --workdir or restore the images"
        )


def _fingerprint(images: np.ndarray) -> dict[str, Any]:
    digest = hashlib.blake2b(digest_size=16)
    for start in range(0, len(images), 256):
        digest.update(np.ascontiguousarray(images[start : start + 256]).tobytes())
    return {"count": len(images), "blake2b": digest.hexdigest()}


def _write_json(path: Path, values: dict[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(values, indent=2) + "\n")
    os.replace(partial, path)


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
    tree: dict[str, Any] = {"step": state.step, "generator": vars(state.generator)}
    if state.discriminator is not None:
        tree["discriminator"] = vars(state.discriminator)
    if state.average is not None:
        generator, discriminator = state.average
        tree["average"] = {"generator": generator}
        if discriminator is not None:
            tree["average"]["discriminator"] = discriminator
    return tree


def _from_tree(tree: dict[str, Any], shapes: TrainState) -> TrainState:
    generator = dataclasses.replace(shapes.generator, **tree["generator"])
    discriminator = shapes.discriminator
    if discriminator is not None:
        discriminator = dataclasses.replace(discriminator, **tree["discriminator"])
    average = shapes.average
    if average is not None:
        average = (tree["average"]["generator"], tree["average"].get("discriminator"))
    return TrainState(jax.numpy.asarray(tree["step"]), generator, discriminator, average)
