"""Images as uint8 arrays, and batches as a pure function of seed and step."""

from pathlib import Path

import numpy as np

from daad_jax.config import Config
from daad_jax.data import folder, textures
from daad_jax.data.dataset import Dataset, ImageSet
from daad_jax.errors import ConfigError, DataError, suggestion

__all__ = ["ALL", "Dataset", "ImageSet", "list_categories", "load_dataset"]

ALL = "all"


def list_categories(config: Config) -> list[str]:
    """Returns the categories that a config asks for: one, or every one of its source for "all".

    Raises:
        ConfigError: if the source has no such category.
        DataError: if the folder is missing or holds no category.
    """
    wanted = config.data.category
    if config.data.source == "textures":
        if wanted == ALL:
            return list(textures.CATEGORIES)
        if wanted not in textures.CATEGORIES:
            raise ConfigError(
                f"data.category: no texture {wanted!r}; {suggestion(wanted, textures.CATEGORIES)}"
            )
        return [wanted]
    if wanted != ALL:
        return [wanted]
    return folder.list_categories(Path(config.data.root))


def load_dataset(config: Config, category: str, cache: Path | None = None) -> Dataset:
    """Loads one category as uint8 arrays.

    Args:
        config: the validated config.
        category: one of `list_categories`.
        cache: folder for the arrays that are too large for memory; None keeps all in memory.

    Returns:
        The data set.

    Raises:
        ConfigError: if the config asks for what the source does not have.
        DataError: if files are missing or damaged, or there are too few training images.
    """
    if config.data.source == "textures":
        if config.data.image_size != textures.CROP or config.data.channels != 1:
            raise ConfigError(
                f"data.image_size: the textures are {textures.CROP} px with data.channels=1"
            )
        dataset = textures.load_textures(category, calibrate=config.data.calibration_fraction > 0)
    else:
        dataset = folder.load_folder(config.data, category, _allocator(config, cache))
    if len(dataset.train) < config.train.batch_size:
        raise DataError(
            f"train.batch_size: {config.train.batch_size} is more than the {len(dataset.train)} "
            f"training images of {dataset.category!r}; lower it or add images"
        )
    return dataset


def _allocator(config: Config, cache: Path | None) -> folder.Allocate:
    def allocate(split: str, shape: tuple[int, ...]) -> np.ndarray:
        size = int(np.prod(shape))
        if cache is None or size <= config.data.memory_limit_mb << 20:
            return np.empty(shape, np.uint8)
        cache.mkdir(parents=True, exist_ok=True)
        return np.lib.format.open_memmap(cache / f"{split}.npy", "w+", np.uint8, shape)

    return allocate
