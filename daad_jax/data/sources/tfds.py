"""Any labelled image set of tensorflow-datasets; reading a prepared set needs no TensorFlow.

A set is prepared once, in a folder that is renamed when it is complete, and is read from there by
random access. The library takes seconds to import, so it is imported only when a set is opened.
"""

import difflib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from daad_jax.config import DataConfig
from daad_jax.data.dataset import Dataset
from daad_jax.data.one_class import LabelledSplit, choose_classes, load_one_class
from daad_jax.data.originals import check_network, first_line, tfds_dir
from daad_jax.errors import ConfigError, DataError

INSTALL_TENSORFLOW = "pip install 'tensorflow-cpu>=2.21'"
_CATALOG = "https://www.tensorflow.org/datasets/catalog"
_FORMAT = "array_record"
_LABEL_CHUNK = 4096


def list_categories(config: DataConfig) -> list[str]:
    """Returns the classes of the set `data.name` that `data.category` stands for.

    Raises:
        ConfigError: if there is no such set or class, or the set has no images or no labels.
        DataError: if the set cannot be prepared.
    """
    return choose_classes(config.category, _open_set(config).classes)


def load(config: DataConfig, category: str, cache: Path | None) -> Dataset:
    """Loads the set `data.name` with one class as the normal one.

    Args:
        config: name, tfds_dir, size, channels, filter, held-out images and the policy for
            unreadable files.
        category: the normal class, by name or index.
        cache: folder for arrays above the memory limit; None keeps them in memory.

    Returns:
        The data set: the images of the normal class of the split "train", and the whole split
        "test".

    Raises:
        ConfigError: if there is no such set or class, or the set has no images or no labels.
        DataError: if the set cannot be prepared or read.
    """
    opened = _open_set(config)
    splits = opened.labelled_split("train"), opened.labelled_split("test")
    return load_one_class(config.name, opened.classes, splits, config, category, cache)


@dataclass(frozen=True)
class _Opened:
    """A prepared set.

    Attributes:
        name: its name in error messages.
        classes: the names of the classes.
        image_key: name of the image feature.
        label_key: name of the class feature.
        splits: for "train" and "test" a sequence of records with encoded images.
        folder: its folder.
    """

    name: str
    classes: list[str]
    image_key: str
    label_key: str
    splits: dict[str, Any]
    folder: Path

    def labelled_split(self, split: str) -> LabelledSplit:
        """Reads the labels of a split; its images are read later."""

        def read(index: int) -> bytes:
            (record,) = self.records(split, [index])
            return record[self.image_key]

        count = len(self.splits[split])
        labels = np.zeros(count, np.int64)
        for start in range(0, count, _LABEL_CHUNK):
            chunk = range(start, min(start + _LABEL_CHUNK, count))
            records = self.records(split, chunk)
            labels[chunk.start : chunk.stop] = [record[self.label_key] for record in records]
        if len(labels) and labels.min() < 0:
            raise ConfigError(
                f"data.name: the {split} split of {self.name} has no labels; choose another set"
            )
        return LabelledSplit(split, np.arange(count), labels, read)

    def records(self, split: str, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Returns some records of a split.

        Raises:
            DataError: if its files are damaged.
        """
        try:
            return list(self.splits[split].__getitems__(indices))
        except Exception as error:  # the library's readers raise many types
            raise DataError(
                f"{self.folder}: the {split} split is damaged ({first_line(error)}); remove the "
                "folder to prepare the set again"
            ) from error


def _open_set(config: DataConfig) -> _Opened:
    """Opens the set `data.name`; prepares it first if needed."""
    import tensorflow_datasets as tfds

    if not config.name:
        raise ConfigError(
            "data.name: give a set's name in tensorflow-datasets, --config.data.name=fashion_mnist"
        )
    builder = _builder(config)
    if not _is_prepared(builder):
        _prepare(builder, config)
        builder = _builder(config)
    image_key, label_key = _find_keys(builder.info.features, config.name)
    for split in ("train", "test"):
        if split not in builder.info.splits:
            raise ConfigError(
                f"data.name: {config.name} has no {split} split, only "
                f"{', '.join(builder.info.splits)}; choose another set"
            )
    try:
        splits = builder.as_data_source(decoders={image_key: tfds.decode.SkipDecoding()})
    except NotImplementedError as error:
        raise DataError(
            f"{builder.data_dir}: is prepared as {builder.info.file_format.value}, which cannot be "
            "read without TensorFlow; prepare it again in another --config.data.tfds_dir"
        ) from error
    classes = list(builder.info.features[label_key].names)
    return _Opened(config.name, classes, image_key, label_key, splits, Path(builder.data_dir))


def _builder(config: DataConfig) -> Any:
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(config.name, data_dir=tfds_dir(config))
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        close = difflib.get_close_matches(config.name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"see {_CATALOG}"
        raise ConfigError(
            f"data.name: tensorflow-datasets has no {config.name!r}; {hint}"
        ) from error
    except Exception as error:  # each malformed part of a name raises another type
        raise ConfigError(
            f"data.name: {config.name!r} cannot be opened ({first_line(error)}); see {_CATALOG}"
        ) from error


def _prepare(builder: Any, config: DataConfig) -> None:
    """Downloads and prepares a set."""
    import tensorflow_datasets as tfds

    name, hint = config.name, f"copy the prepared set from elsewhere to {tfds_dir(config)}"
    check_network(builder.url_infos or (), "data.name", name, hint)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False),
            file_format=_FORMAT,
        )
    except Exception as error:  # builders, downloads and disks fail in many ways
        if isinstance(error, ModuleNotFoundError) and error.name == "tensorflow":
            raise DataError(
                f"data.name: preparing {name} needs TensorFlow, once: {INSTALL_TENSORFLOW}; or "
                f"{hint}"
            ) from error
        if _is_prepared(builder):
            return  # another process prepared it at the same time
        raise DataError(
            f"data.name: {name} cannot be prepared under {builder.data_dir} "
            f"({first_line(error)}); {hint}"
        ) from error


def _is_prepared(builder: Any) -> bool:
    # The builder's own method prints a warning if the set is not prepared.
    return (Path(builder.data_dir) / "dataset_info.json").is_file()


def _find_keys(features: Any, name: str) -> tuple[str, str]:
    """Returns the names of the image and the class feature; prefers "image" and "label"."""
    import tensorflow_datasets as tfds

    def find(kind: type, usual: str, what: str) -> str:
        keys = [key for key, feature in features.items() if isinstance(feature, kind)]
        if not keys:
            raise ConfigError(f"data.name: {name} has no {what}; choose a set of labelled images")
        return usual if usual in keys else keys[0]

    image = find(tfds.features.Image, "image", "images")
    return image, find(tfds.features.ClassLabel, "label", "labels of classes")
