"""Builders that prepare MNIST and CIFAR-10 with tensorflow-datasets but without TensorFlow.

tensorflow-datasets' own builders encode and unpack through TensorFlow. These hand over images that
are encoded already, and read the original files themselves. Importing this module imports
tensorflow-datasets, so only `daad_jax.data.prepared` does, when a set is asked for.
"""

import functools
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from PIL import Image

from daad_jax.data import originals
from daad_jax.data.originals import Original, Reader


class _OriginalBuilder(tfds.core.GeneratorBasedBuilder):
    """Prepares a set from its original files, in their order."""

    VERSION = tfds.core.Version("1.0.0")
    original: Original

    def __init__(self, reader: Reader | None = None, **arguments: Any) -> None:
        """Takes what reads the original files, None to download them, and the base's arguments."""
        self._reader = reader
        super().__init__(**arguments)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=self.original.shape, encoding_format="png"),
            "label": tfds.features.ClassLabel(names=self.original.classes),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{self.original.title} in the order of its original files.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        reader = self._reader or self._download(dl_manager)
        return {split: self._generate_examples(split, reader) for split in ("train", "test")}

    def _generate_examples(
        self, split: str, reader: Reader
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        pixels, labels = originals.read_split(self.original, split, reader)
        for index, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            buffer = io.BytesIO()
            Image.fromarray(image.squeeze()).save(buffer, format="PNG")
            buffer.seek(0)
            yield index, {"image": buffer, "label": int(label)}

    def _download(self, dl_manager: tfds.download.DownloadManager) -> Reader:
        raise NotImplementedError


class DaadMnist(_OriginalBuilder):
    """MNIST; downloaded from, and checked against, what tensorflow-datasets' `mnist` names."""

    original = originals.MNIST
    url_infos = tfds.image_classification.MNIST.url_infos

    def _download(self, dl_manager: tfds.download.DownloadManager) -> Reader:
        paths = dl_manager.download({Path(url).name: url for url in self.url_infos})
        return lambda name: Path(paths[name]).read_bytes()


class DaadCifar10(_OriginalBuilder):
    """CIFAR-10; downloaded from, and checked against, what the library's `cifar10` names."""

    original = originals.CIFAR10
    url_infos = tfds.image_classification.Cifar10.url_infos

    def _download(self, dl_manager: tfds.download.DownloadManager) -> Reader:
        (url,) = self.url_infos
        return functools.partial(_read_member, Path(dl_manager.download(url)), self.original.folder)


def _read_member(archive: Path, folder: str, name: str) -> bytes:
    with tarfile.open(archive) as tar:
        member = tar.extractfile(f"{folder}/{name}")
        assert member is not None, "the archive's checksum was right"
        return member.read()


BUILDERS: dict[str, type[_OriginalBuilder]] = {"mnist": DaadMnist, "cifar10": DaadCifar10}
