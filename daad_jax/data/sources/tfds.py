"""Any labelled image set of tensorflow-datasets. Reading a prepared set needs no TensorFlow.

A set is prepared once, in a folder that is renamed when it is complete, and is read from there by
random access. The library takes seconds to import, so it is imported only when a set is opened.
"""

import difflib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from daad_jax.config import DataConfig
from daad_jax.data.one_class import LabelledSet, LabelledSource, LabelledSplit
from daad_jax.data.originals import check_network, first_line, tfds_dir
from daad_jax.errors import ConfigError, DataError

INSTALL_TENSORFLOW = "pip install 'tensorflow-cpu>=2.21'"
_CATALOG = "https://www.tensorflow.org/datasets/catalog"
_FORMAT = "array_record"
_LABEL_CHUNK = 4096


def open_set(config: DataConfig) -> LabelledSet:
    """Opens the set `data.name` and prepares it first if needed.

    Raises ConfigError if there is no such set, or if it has no images, labels, "train" or "test".
    Raises DataError if it cannot be prepared or read.
    """
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
    folder, keys = Path(builder.data_dir), (image_key, label_key)
    parts = [_labelled(name, splits[name], folder, keys) for name in ("train", "test")]
    return LabelledSet(config.name, builder.info.features[label_key].names, *parts)


def _labelled(split: str, source: Any, folder: Path, keys: tuple[str, str]) -> LabelledSplit:
    """Reads the labels of a split. Its images are read later."""
    image_key, label_key = keys

    def records(indices: Sequence[int]) -> list[dict[str, Any]]:
        try:
            return list(source.__getitems__(indices))
        except Exception as error:  # the library's readers raise many types
            raise DataError(
                f"{folder}: the {split} split is damaged ({first_line(error)}); remove the folder "
                "to prepare the set again"
            ) from error

    labels = np.zeros(len(source), np.int64)
    for start in range(0, len(source), _LABEL_CHUNK):
        chunk = range(start, min(start + _LABEL_CHUNK, len(source)))
        labels[chunk.start : chunk.stop] = [record[label_key] for record in records(chunk)]
    if len(labels) and labels.min() < 0:
        raise ConfigError(f"data.name: the {split} split has no labels; choose another set")
    return LabelledSplit(
        labels, np.arange(len(labels)), lambda index: records([index])[0][image_key]
    )


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
    """Returns the names of the image and the class feature, "image" and "label" if it has them."""
    import tensorflow_datasets as tfds

    def find(kind: type, usual: str, what: str) -> str:
        keys = [key for key, feature in features.items() if isinstance(feature, kind)]
        if not keys:
            raise ConfigError(f"data.name: {name} has no {what}; choose a set of labelled images")
        return usual if usual in keys else keys[0]

    image = find(tfds.features.Image, "image", "images")
    return image, find(tfds.features.ClassLabel, "label", "labels of classes")


SOURCE = LabelledSource(open_set)
