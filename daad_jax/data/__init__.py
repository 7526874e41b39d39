"""Image data sets: where they come from, how they are decoded, which images are held out."""

from pathlib import Path

from daad_jax.config import DataConfig
from daad_jax.data.dataset import ALL, GOOD, Dataset, ImageSet, display_name
from daad_jax.data.look import warn_of_pixels
from daad_jax.data.sources import SOURCES, Source
from daad_jax.errors import ConfigError, DataError, printable, shown, suggestion, warn
from daad_jax.runtime import signals


def check_source(config: DataConfig) -> Source:
    """Returns the module of the source `data.source`.

    Raises ConfigError if there is no such source.
    """
    if config.source not in SOURCES:
        raise ConfigError(
            f"data.source: no {shown(config.source)}; {suggestion(config.source, SOURCES)}"
        )
    return SOURCES[config.source]


def list_categories(config: DataConfig) -> list[str]:
    """Returns the category that a config asks for, or all of its source for "all".

    Raises ConfigError if there is no such source or category, and DataError if the folder is
    missing or holds no category, or if a set cannot be prepared.
    """
    with signals.interruptible():
        return check_source(config).list_categories(config.located())


def load_dataset(config: DataConfig, category: str, cache: Path | None = None) -> Dataset:
    """Loads one category, one of `list_categories`, as uint8 arrays.

    Arrays above `data.memory_limit_mb` are kept on the disk, in `data.cache_dir` or, if that is
    empty, in `cache`. With neither they stay in memory. Raises ConfigError if the source cannot
    provide what the config asks for, and DataError if files are missing or damaged, or too few
    images can be used.
    """
    source, config = check_source(config), config.located()
    if config.cache_dir:
        cache = Path(config.cache_dir)
    with signals.interruptible():
        dataset = source.load(config, category, cache)
        _check_counts(config, dataset)
        _warn_of_missing_labels(config, dataset)
        _warn_of_duplicates(dataset)
        warn_of_pixels(dataset)
    return dataset


def _check_counts(config: DataConfig, dataset: Dataset) -> None:
    held_out = len(dataset.calibration)
    tested = dataset.test.kinds.count(GOOD)
    if not len(dataset.train) and not held_out and tested and (config.test_fraction or config.bad):
        raise DataError(
            f"data.test_fraction: holds out all {tested} usable normal images of "
            f"{dataset.category!r}, at least two; add images, or set it to 0"
        )
    if not len(dataset.train) and held_out:
        raise DataError(
            f"data.calibration_fraction: holds out all {held_out} usable normal images of "
            f"{dataset.category!r}, at least two; add images, or set it to 0 and score.protocol to "
            "'paper'"
        )
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


def _warn_of_missing_labels(config: DataConfig, dataset: Dataset) -> None:
    labels = set(dataset.test.labels.tolist())
    kinds = enumerate(("normal", "defective"))
    if missing := [kind for label, kind in kinds if label not in labels]:
        where = f" in {config.test_root or config.root}" if config.source == "folder" else ""
        what = f"no {' and no '.join(missing)} test image{printable(where)}"
        warn(f"{printable(dataset.category)}: {what}, so there is no AUROC")


def _warn_of_duplicates(dataset: Dataset) -> None:
    told = {
        f"{{}} of the {len(dataset.test)} test images are also training images": 0,
        "{} test image(s) are both normal and defective": 1,
    }
    for sentence, kind in told.items():
        if pairs := dataset.duplicates[kind]:
            which = " and ".join(map(printable, pairs[0]))
            what = f"{printable(dataset.category)}: {sentence.format(len(pairs))}"
            warn(f"{what}, {which} for example; remove one of the two")
