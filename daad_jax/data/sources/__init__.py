"""The data sources: one module each, with the two functions of `Source`."""

from pathlib import Path
from typing import Protocol

from daad_jax.config import DataConfig
from daad_jax.data.dataset import Dataset
from daad_jax.data.sources import cifar10, digits, folder, mnist, textures, tfds


class Source(Protocol):
    """What every module here provides. A new source is one file and one row of `SOURCES`."""

    def list_categories(self, config: DataConfig) -> list[str]:
        """Returns the categories that `data.category` stands for. "all" stands for every one.

        Raises ConfigError if there is no such category, and DataError if the data is missing.
        """

    def load(self, config: DataConfig, category: str, cache: Path | None) -> Dataset:
        """Loads one category, one of `list_categories`.

        `cache` is a folder for arrays above `data.memory_limit_mb`. If it is None they stay in
        memory. Raises ConfigError if the source cannot provide what the config asks for, and
        DataError if data is missing or damaged.
        """


SOURCES: dict[str, Source] = {
    "textures": textures,
    "folder": folder,
    "digits": digits.SOURCE,
    "mnist": mnist.SOURCE,
    "cifar10": cifar10.SOURCE,
    "tfds": tfds.SOURCE,
}
