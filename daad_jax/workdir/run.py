"""The run of a workdir: which config and which training images it belongs to.

A workdir holds ``config.json``, ``images.json`` (a fingerprint of the training images),
``checkpoints/<step>/``, and the files that training and evaluation write.
"""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from daad_jax import config as config_lib
from daad_jax.config import Config
from daad_jax.errors import CheckpointError, ConfigError
from daad_jax.runtime import files, processes
from daad_jax.workdir import lock
from daad_jax.workdir.checkpoint import CHECKPOINTS

CONFIG_FILE = "config.json"
IMAGES_FILE = "images.json"

# Fields that may change when a run is resumed, because they do not change what is trained.
CHANGEABLE_FIELDS = (
    "data.root",
    "data.test_root",
    "data.ignore",
    "data.memory_limit_mb",
    "data.on_device",
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
    *(name for name in config_lib.field_types() if name.startswith(("score.", "mesh."))),
)


@contextlib.contextmanager
def open_run(folder: Path, config: Config, images: np.ndarray) -> Iterator[Path]:
    """Locks a workdir for training and writes ``config.json`` and ``images.json``.

    With several processes this is a collective call: the first process locks and writes, then the
    others check that they see the same run and have the same config. Only the first holds the lock.

    `images` are the training images, uint8 ``(n, H, W, C)``. The folder is created if it does not
    exist. Raises CheckpointError if the workdir is in use, belongs to a run with another config or
    other images, or is damaged.
    """
    with contextlib.ExitStack() as held:
        processes.in_first(lambda: held.enter_context(_begin(folder, config, images)))
        if not processes.is_first():
            _check_same_config(folder, config)
            check_same_images(folder, images)
        yield folder


def load_config(folder: Path) -> Config:
    """Reads and validates the ``config.json`` of a workdir.

    Raises CheckpointError if the file does not exist or is damaged.
    """
    path = folder / CONFIG_FILE
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise _no_run(folder) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error}); restore it") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: is not a config; restore it")
    try:
        config = config_lib.from_dict(values)
        config_lib.validate(config)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return config


def write_config(folder: Path, config: Config) -> None:
    """Writes the ``config.json`` of a workdir. The folders that it names become absolute."""
    located = dataclasses.replace(config, data=config.data.located())
    files.write_json(folder / CONFIG_FILE, config_lib.to_dict(located))


def check_same_run(folder: Path, config: Config) -> None:
    """Checks that a workdir is new or holds a run of the same config.

    Fields of `CHANGEABLE_FIELDS` may differ.

    Raises CheckpointError, which names the first field that differs.
    """
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder}: is a file; give a folder as --workdir")
    if not (folder / CONFIG_FILE).exists():
        if (folder / CHECKPOINTS).exists():
            raise CheckpointError(f"{folder}: has checkpoints but no {CONFIG_FILE}; restore it")
        return
    for name, value, old in _differences(folder, config):
        if name not in CHANGEABLE_FIELDS:
            raise CheckpointError(
                f"{name}: is {value!r}, but the run in {folder} was trained with {old!r}; choose "
                "another --workdir or set it back"
            )


def _check_same_config(folder: Path, config: Config) -> None:
    """Checks that this process has the config that the first one has just written.

    Only where the images lie and how they are read may differ.
    """
    for name, value, first in _differences(folder, config):
        if name == "data.on_device" or not (name.startswith("data.") and name in CHANGEABLE_FIELDS):
            raise CheckpointError(
                f"{name}: is {value!r}, but {first!r} in the first process; start all processes "
                "with the same config"
            )


def _differences(folder: Path, config: Config) -> Iterator[tuple[str, Any, Any]]:
    """Each field with another value than in ``config.json``: its name and both values."""
    old = config_lib.flatten(config_lib.to_dict(load_config(folder)))
    new = config_lib.flatten(config_lib.to_dict(config))
    yield from ((name, value, old[name]) for name, value in new.items() if old[name] != value)


def check_same_images(folder: Path, images: np.ndarray) -> dict[str, Any]:
    """Checks that the uint8 ``(n, H, W, C)`` training images are those of ``images.json``, if any.

    Returns their fingerprint. Raises CheckpointError if they differ or the file is damaged.
    """
    path, fingerprint = folder / IMAGES_FILE, _fingerprint(images)
    if not path.exists():
        return fingerprint
    try:
        old = json.loads(path.read_text())
        count = old["count"]
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error!r}); restore it") from error
    if old != fingerprint:
        raise CheckpointError(
            f"{folder}: was trained on {count} other images than the {fingerprint['count']} that "
            "the config selects now; restore the images or choose another --workdir"
        )
    return fingerprint


def find_runs(workdir: Path) -> list[Path]:
    """Returns the folders that hold a run: the workdir itself, or its sorted subfolders.

    Raises CheckpointError if there is none, or the runs differ in more than the category.
    """
    if (workdir / CONFIG_FILE).exists():
        return [workdir]
    if not workdir.is_dir():
        raise CheckpointError(f"{workdir}: is not a folder; give the --workdir of a training run")
    runs = sorted(path.parent for path in workdir.glob(f"*/{CONFIG_FILE}"))
    if not runs:
        raise _no_run(workdir)
    first = load_config(runs[0])
    for run in runs[1:]:
        other = load_config(run)
        other.data.category = first.data.category
        if other != first:
            raise CheckpointError(
                f"{workdir}: {runs[0].name} and {run.name} differ in more than the category; give "
                "the --workdir of one of them"
            )
    return runs


@contextlib.contextmanager
def _begin(folder: Path, config: Config, images: np.ndarray) -> Iterator[None]:
    check_same_run(folder, config)  # before a lock file is created in it
    with lock.hold(folder):
        check_same_run(folder, config)  # another process may have started a run meanwhile
        fingerprint = check_same_images(folder, images)
        files.write_json(folder / IMAGES_FILE, fingerprint)
        write_config(folder, config)
        yield


def _no_run(folder: Path) -> CheckpointError:
    return CheckpointError(f"{folder}: holds no run (no {CONFIG_FILE}); train there first")


def _fingerprint(images: np.ndarray) -> dict[str, Any]:
    digest = hashlib.blake2b(digest_size=16)
    for start in range(0, len(images), 256):
        digest.update(np.ascontiguousarray(images[start : start + 256]).tobytes())
    return {"count": len(images), "blake2b": digest.hexdigest()}
