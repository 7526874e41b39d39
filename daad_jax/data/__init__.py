"""Image data sets: where they come from, how they are decoded, which images are held out."""

from pathlib import Path

from daad_jax.config import DataConfig
from daad_jax.data.dataset import ALL, Dataset, ImageSet, display_name
from daad_jax.data.sources import SOURCES, Source
from daad_jax.errors import ConfigError, DataError, printable, shown, suggestion, warn
from daad_jax.runtime import signals

__all__ = [
    "ALL",
    "SOURCES",
    "Dataset",
    "ImageSet",
    "check_source",
    "display_name",
    "list_categories",
    "load_dataset",
]


def check_source(config: DataConfig) -> Source:
    """Returns the module of the source `data.source`.

    Raises:
        ConfigError: if there is no such source.
    """
    if config.source not in SOURCES:
        raise ConfigError(
            f"data.source: no {shown(config.source)}; {suggestion(config.source, SOURCES)}"
        )
    return SOURCES[config.source]


def list_categories(config: DataConfig) -> list[str]:
    """Returns the categories that a config asks for: one, or for "all" every one of its source.

    Raises:
        ConfigError: if there is no such source or category.
        DataError: if the folder is missing or holds no category, or a set cannot be prepared.
    """
    with signals.interruptible():
        return check_source(config).list_categories(config)


def load_dataset(config: DataConfig, category: str, cache: Path | None = None) -> Dataset:
    """Loads one category as uint8 arrays.

    Args:
        config: the data section of a validated config.
        category: one of `list_categories`.
        cache: folder for arrays above `data.memory_limit_mb`, if `data.cache_dir` is empty; None
            keeps them in memory.

    Returns:
        The data set.

    Raises:
        ConfigError: if the source cannot provide what the config asks for.
        DataError: if files are missing or damaged, or too few images can be used.
    """
    source = check_source(config)
    if config.cache_dir:
        cache = Path(config.cache_dir).expanduser()
    with signals.interruptible():
        dataset = source.load(config, category, cache)
        _check_counts(config, dataset)
        _warn_of_duplicates(dataset)
    return dataset


def _check_counts(config: DataConfig, dataset: Dataset) -> None:
    if not len(dataset.train):
        raise DataError(
            f"data.category: no training image of {dataset.category!r} can be used; add images or "
            "repair the files"
        )
    if config.calibration_fraction > 0 and len(dataset.calibration) < 2:
        raise DataError(
            f"data.calibration_fraction: {len(dataset.calibration)} calibration image(s) of "
            f"{dataset.category!r} can be used and two are needed; add images or repair the files"
        )
    if not 0 < dataset.test.labels.sum() < len(dataset.test):
        raise DataError(
            f"data.category: {dataset.category!r} has no normal or no defective test image that "
            "can be used; repair the files or choose another category"
        )


def _warn_of_duplicates(dataset: Dataset) -> None:
    duplicates = dataset.duplicates
    if duplicates.in_training:
        test, other = duplicates.in_training[0]
        warn(
            f"{printable(dataset.category)}: {len(duplicates.in_training)} of the "
            f"{len(dataset.test)} test images are also training images, {printable(test)} and "
            f"{printable(other)} for example; remove one of the two"
        )
    if duplicates.under_both_labels:
        good, defective = duplicates.under_both_labels[0]
        warn(
            f"{printable(dataset.category)}: {len(duplicates.under_both_labels)} test image(s) are "
            f"both normal and defective, {printable(good)} and {printable(defective)} for example; "
            "remove one of the two"
        )
