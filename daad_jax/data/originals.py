"""Finds the original files of MNIST and CIFAR-10, or downloads them if no folder is given."""

import os
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from daad_jax.config import DataConfig
from daad_jax.errors import DataError

_TIMEOUT_SECONDS = 10


def find_folder(config: DataConfig, title: str, files: Sequence[str]) -> Path:
    """Returns `data.root` or, if it is empty, the folder that a set is downloaded to.

    Downloads go to ``originals/SOURCE`` under `tfds_dir` and are made once. `files` are the
    original files to download, and `title` is the set's name in error messages.

    Raises DataError if the files cannot be downloaded or have other checksums.
    """
    if config.root:
        return Path(config.root)
    folder = tfds_dir(config) / "originals" / config.source
    if not all((folder / name).is_file() for name in files):
        _download(config.source, folder, title, files)
    return folder


def missing(path: Path, title: str, files: Sequence[str]) -> DataError:
    """Returns the error for a missing original file."""
    return DataError(
        f"{path}: missing; data.root must hold {title}'s original files: {', '.join(files)}"
    )


def check_labels(path: Path, labels: np.ndarray, classes: Sequence[str]) -> None:
    """Checks that every label of a file is the index of a class.

    Raises DataError if not.
    """
    if len(labels) and labels.max() >= len(classes):
        raise DataError(
            f"{path}: has the label {labels.max()}, but there are {len(classes)} classes; restore "
            "the original file"
        )


def tfds_dir(config: DataConfig) -> Path:
    """Returns the folder of tensorflow-datasets: `data.tfds_dir` or the library's default."""
    default = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return Path(config.tfds_dir or default).expanduser()


def check_network(urls: Iterable[str], field: str, title: str, hint: str) -> None:
    """Checks that the server of the first URL can be reached.

    Without this check tensorflow-datasets would try for minutes. Raises DataError if the server
    cannot be reached. Its message names `field` and `title`, and `hint` says what the user can do.
    """
    for url in list(urls)[:1]:
        parts = urlsplit(url)
        request = urllib.request.Request(f"{parts.scheme}://{parts.netloc}/", method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS).close()
        except urllib.error.HTTPError:
            return  # the server answered
        except OSError as error:
            raise DataError(
                f"{field}: {title} must be downloaded and {parts.netloc} cannot be reached "
                f"({first_line(error)}); {hint}"
            ) from error


def first_line(error: Exception) -> str:
    """Returns the first line of an error's text, at most 200 characters."""
    lines = str(error).strip().splitlines() or [repr(error)]
    return lines[0] if len(lines[0]) <= 200 else f"{lines[0][:200]}…"


def _url_infos(source: str) -> Mapping[str, Any]:
    """URLs and their checksums, as tensorflow-datasets states them."""
    import tensorflow_datasets as tfds

    sets = tfds.image_classification
    return {"mnist": sets.MNIST, "cifar10": sets.Cifar10}[source].url_infos


def _download(source: str, folder: Path, title: str, files: Sequence[str]) -> None:
    """Downloads files into a private folder, checks them, and moves them to `folder`."""
    import tensorflow_datasets as tfds

    infos = _url_infos(source)
    hint = f"give the folder with {', '.join(files)} as --config.data.root=FOLDER"
    check_network(infos, "data.root", title, hint)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # After a failure other downloads may still be writing there, so its removal may fail.
        with tempfile.TemporaryDirectory(
            prefix=".downloading-", dir=folder, ignore_cleanup_errors=True
        ) as private:
            manager = tfds.download.DownloadManager(
                download_dir=private, url_infos=dict(infos), force_checksums_validation=True
            )
            paths = manager.download({Path(urlsplit(url).path).name: url for url in infos})
            for name in files:
                os.replace(paths[name], folder / name)
    except Exception as error:  # downloads and disks fail in many ways
        raise DataError(
            f"data.root: {title} cannot be downloaded to {folder} ({first_line(error)}); {hint}"
        ) from error
