"""Labelled sets through tensorflow-datasets, without TensorFlow wherever they are only read.

A set is prepared once, in a folder that appears only when it is whole, and read from there by
random access. The library is imported when a set is asked for, because it takes long.
"""

import difflib
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from daad_jax.config import DataConfig
from daad_jax.data import one_class, originals
from daad_jax.data.bad_files import BadFiles
from daad_jax.data.dataset import Dataset, ImageSet, hold_out
from daad_jax.data.encoded import EncodedImages, load_images
from daad_jax.data.originals import ORIGINALS
from daad_jax.errors import ConfigError, DataError

INSTALL_TENSORFLOW = "pip install 'tensorflow-cpu>=2.21'"
_CATALOG = "https://www.tensorflow.org/datasets/catalog"
_FORMAT = "array_record"
_REACH_SECONDS = 10
_LABEL_CHUNK = 4096


@dataclass(frozen=True)
class Prepared:
    """A prepared set that can be read.

    Attributes:
        name: its name for people.
        classes: the classes' names.
        image_key: which feature is the image.
        label_key: which feature is the class.
        splits: for "train" and "test" a sequence of records, their images still encoded.
        folder: where it is.
    """

    name: str
    classes: list[str]
    image_key: str
    label_key: str
    splits: dict[str, Any]
    folder: Path

    def read(self, split: str, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Returns some records of a split.

        Raises:
            DataError: if its files are damaged.
        """
        try:
            return list(self.splits[split].__getitems__(indices))
        except Exception as error:  # the library raises what its readers do
            raise DataError(
                f"{self.folder}: the {split} split is damaged ({_reason(error)}); remove the "
                "folder to have it prepared anew"
            ) from error


def list_classes(config: DataConfig) -> list[str]:
    """Returns the names of the classes of the set that a config names.

    Raises:
        ConfigError: if there is no such set, or it is not one of labelled images.
        DataError: if it cannot be prepared.
    """
    if config.source in ORIGINALS:
        return list(ORIGINALS[config.source].classes)
    return open_named(config).classes


def load_prepared(config: DataConfig, category: str, cache: Path | None) -> Dataset:
    """Loads a labelled set with one class as the normal one.

    Args:
        config: which set and where, size, channels, filter and calibration fraction.
        category: the normal class, by name or number.
        cache: see `daad_jax.data.encoded.load_images`.

    Returns:
        The data set: the normal class of the "train" split, less the last of it to calibrate, and
        the whole "test" split.

    Raises:
        ConfigError: if there is no such set or class, or it is not one of labelled images.
        DataError: if it cannot be prepared or read.
    """
    bad = BadFiles(config)
    opened = open_original(config) if config.source in ORIGINALS else open_named(config)
    normal = one_class.resolve_class(category, opened.classes)
    train_labels = _read_labels(opened, "train")
    own = np.flatnonzero(train_labels == normal)
    train, calibration = hold_out(
        _load_split(opened, "train", own, train_labels, normal, config, cache, bad),
        config.calibration_fraction,
    )
    labels = _read_labels(opened, "test")
    if not 0 < np.sum(labels == normal) < len(labels):
        raise DataError(
            f"data.category: the test split of {opened.name} needs images of "
            f"{opened.classes[normal]!r} and of other classes; choose another class or set"
        )
    test = _load_split(opened, "test", np.arange(len(labels)), labels, normal, config, cache, bad)
    bad.warn(opened.classes[normal])
    return Dataset(opened.classes[normal], train, test, calibration, len(bad.errors))


def open_original(config: DataConfig) -> Prepared:
    """Opens MNIST or CIFAR-10, prepared first where it is not yet.

    Files under `data.root` are prepared in a folder named after a hash of them, so that other
    files are never answered with them.

    Raises:
        DataError: if the files are missing or damaged, or cannot be downloaded.
    """
    from daad_jax.data import builders

    original, folder = ORIGINALS[config.source], _tfds_dir(config)
    reader = None
    if config.root:
        reader = originals.folder_reader(original, config.root)
        folder = folder / "originals" / originals.fingerprint(original, reader)
    make = builders.BUILDERS[config.source]
    builder = make(reader, data_dir=folder, file_format=_FORMAT)
    hint = f"give the folder with {', '.join(original.all_files)} as --config.data.root=FOLDER"
    if not _is_prepared(builder):
        _prepare(builder, "data.root", original.title, reader is None, hint)
        builder = make(reader, data_dir=folder, file_format=_FORMAT)
    return _open(builder, original.title)


def open_named(config: DataConfig) -> Prepared:
    """Opens the set of tensorflow-datasets that `data.name` names, prepared where it is not yet.

    Raises:
        ConfigError: if there is no such set, or it is not one of labelled images.
        DataError: if it cannot be prepared.
    """
    builder = _named_builder(config)
    if not _is_prepared(builder):
        hint = f"copy the set, prepared elsewhere, to {_tfds_dir(config)}"
        _prepare(builder, "data.name", config.name, True, hint)
        builder = _named_builder(config)
    return _open(builder, config.name)


def _tfds_dir(config: DataConfig) -> Path:
    import tensorflow_datasets as tfds

    return Path(config.tfds_dir or tfds.core.constants.DATA_DIR).expanduser()


def _named_builder(config: DataConfig) -> Any:
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(config.name, data_dir=_tfds_dir(config))
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        close = difflib.get_close_matches(config.name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"see {_CATALOG}"
        raise ConfigError(
            f"data.name: tensorflow-datasets has no {config.name!r}; {hint}"
        ) from error
    except Exception as error:  # each part of a name is refused with another kind
        raise ConfigError(
            f"data.name: {config.name!r} cannot be opened ({_reason(error)}); see {_CATALOG}"
        ) from error


def _prepare(builder: Any, field: str, name: str, downloads: bool, hint: str) -> None:
    """Prepares a set, in a folder that is renamed when it is whole."""
    import tensorflow_datasets as tfds

    if downloads:
        _check_network(builder.url_infos or (), field, name, hint)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False),
            file_format=_FORMAT,
        )
    except DataError:
        raise
    except Exception as error:  # builders, downloads and disks fail in many ways
        if isinstance(error, ModuleNotFoundError) and error.name == "tensorflow":
            raise DataError(
                f"{field}: preparing {name} needs TensorFlow, once: {INSTALL_TENSORFLOW}; or {hint}"
            ) from error
        if _is_prepared(builder):
            return  # another process was faster, and the rename found its folder
        raise DataError(
            f"{field}: {name} cannot be prepared under {builder.data_dir} ({_reason(error)}); "
            f"{hint}"
        ) from error


def _is_prepared(builder: Any) -> bool:
    # The builder's own method warns on standard error when the answer is no.
    return (Path(builder.data_dir) / "dataset_info.json").is_file()


def _check_network(urls: Iterable[str], field: str, name: str, hint: str) -> None:
    """Fails at once where no connection can be made; the library tries for minutes."""
    for url in list(urls)[:1]:
        parts = urlsplit(url)
        request = urllib.request.Request(f"{parts.scheme}://{parts.netloc}/", method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=_REACH_SECONDS).close()
        except urllib.error.HTTPError:
            return  # it answered
        except OSError as error:
            raise DataError(
                f"{field}: {name} is not prepared yet and {parts.netloc} cannot be reached "
                f"({_reason(error)}); {hint}"
            ) from error


def _open(builder: Any, name: str) -> Prepared:
    import tensorflow_datasets as tfds

    image_key, label_key = _find_keys(builder.info.features, name)
    for split in ("train", "test"):
        if split not in builder.info.splits:
            raise ConfigError(
                f"data.name: {name} has no {split} split, only "
                f"{', '.join(builder.info.splits)}; choose another set"
            )
    try:
        splits = builder.as_data_source(decoders={image_key: tfds.decode.SkipDecoding()})
    except NotImplementedError as error:
        raise DataError(
            f"{builder.data_dir}: is prepared as {builder.info.file_format.value}, which cannot be "
            f"read without TensorFlow; give another --config.data.tfds_dir to prepare it anew"
        ) from error
    classes = list(builder.info.features[label_key].names)
    return Prepared(name, classes, image_key, label_key, splits, Path(builder.data_dir))


def _find_keys(features: Any, name: str) -> tuple[str, str]:
    """The image's and the class's feature; "image" and "label" go before others of their kind."""
    import tensorflow_datasets as tfds

    def find(kind: type, usual: str, what: str) -> str:
        keys = [key for key, feature in features.items() if isinstance(feature, kind)]
        if not keys:
            raise ConfigError(f"data.name: {name} has no {what}; choose a set of labelled images")
        return usual if usual in keys else keys[0]

    image = find(tfds.features.Image, "image", "images")
    return image, find(tfds.features.ClassLabel, "label", "labels of classes")


def _read_labels(opened: Prepared, split: str) -> np.ndarray:
    count = len(opened.splits[split])
    labels = np.zeros(count, np.int64)
    for start in range(0, count, _LABEL_CHUNK):
        chunk = range(start, min(start + _LABEL_CHUNK, count))
        labels[chunk.start : chunk.stop] = [
            record[opened.label_key] for record in opened.read(split, chunk)
        ]
    if len(labels) and labels.min() < 0:
        raise ConfigError(f"data.name: {opened.name}'s {split} split is not labelled")
    return labels


def _load_split(
    opened: Prepared,
    split: str,
    chosen: np.ndarray,
    labels: np.ndarray,
    normal: int,
    config: DataConfig,
    cache: Path | None,
    bad: BadFiles,
) -> ImageSet:
    """Decodes the chosen images of a split; `labels` are those of the whole split."""

    def read(index: int) -> bytes:
        (record,) = opened.read(split, [int(chosen[index])])
        return record[opened.image_key]

    encoded = EncodedImages(
        names=[f"{split}/{opened.classes[labels[index]]}/{index:05d}" for index in chosen],
        kinds=one_class.class_kinds(labels[chosen], opened.classes, normal),
        places=[f"{opened.name}, {split} image {index}" for index in chosen],
        read=read,
    )
    return load_images(encoded, config, cache, bad)


def _reason(error: Exception) -> str:
    """The first line of an error, cut short."""
    lines = str(error).strip().splitlines() or [repr(error)]
    return lines[0] if len(lines[0]) <= 200 else f"{lines[0][:200]}…"
