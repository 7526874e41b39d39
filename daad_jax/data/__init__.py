"""Images as uint8 arrays, and batches as a pure function of seed and step."""

from pathlib import Path

import numpy as np

from daad_jax import interruption
from daad_jax.config import Config
from daad_jax.data import digits, folder, one_class, prepared, textures
from daad_jax.data.dataset import Dataset, ImageSet, display_name
from daad_jax.errors import ConfigError, DataError, printable, suggestion, warn

__all__ = ["ALL", "Dataset", "ImageSet", "display_name", "list_categories", "load_dataset"]

ALL = "all"


def list_categories(config: Config) -> list[str]:
    """Returns the categories that a config asks for: one, or every one of its source for "all".

    Raises:
        ConfigError: if the source has no such category.
        DataError: if the folder is missing or holds no category, or a set cannot be prepared.
    """
    source, wanted = config.data.source, config.data.category
    if source == "mvtec":
        if wanted != ALL:
            return [wanted]
        names = folder.list_categories(Path(config.data.root))
        for name in names:
            folder.check_layout(config.data, name)
        return names
    if source == "textures":
        if wanted != ALL and wanted not in textures.CATEGORIES:
            raise ConfigError(
                f"data.category: no texture {wanted!r}; {suggestion(wanted, textures.CATEGORIES)}"
            )
        return list(textures.CATEGORIES) if wanted == ALL else [wanted]
    classes = list(digits.CLASSES) if source == "digits" else prepared.list_classes(config.data)
    return classes if wanted == ALL else [classes[one_class.resolve_class(wanted, classes)]]


def load_dataset(config: Config, category: str, cache: Path | None = None) -> Dataset:
    """Loads one category as uint8 arrays.

    Args:
        config: the validated config.
        category: one of `list_categories`.
        cache: folder for the arrays that are too large for memory, unless `data.cache_dir` names
            one; None keeps all in memory.

    Returns:
        The data set.

    Raises:
        ConfigError: if the config asks for what the source does not have.
        DataError: if files are missing or damaged, or there are too few images.
    """
    with interruption.anywhere():
        dataset = _load(config, category, cache)
    if not 0 < np.sum(dataset.test.labels) < len(dataset.test):
        raise DataError(
            f"data.category: no good or no defective test image of {dataset.category!r} can be "
            "used; mend the files"
        )
    if len(dataset.train) < config.train.batch_size:
        raise DataError(
            f"train.batch_size: {config.train.batch_size} is more than the {len(dataset.train)} "
            f"training images of {dataset.category!r}; lower it or add images"
        )
    _warn_of_duplicates(dataset)
    return dataset


def _warn_of_duplicates(dataset: Dataset) -> None:
    duplicates = dataset.duplicates
    if duplicates.in_training:
        test, other = duplicates.in_training[0]
        warn(
            f"{printable(dataset.category)}: {len(duplicates.in_training)} of the "
            f"{len(dataset.test)} test images are training images too, {printable(test)} and "
            f"{printable(other)} for example; remove one of the two"
        )
    if duplicates.under_both_labels:
        good, defective = duplicates.under_both_labels[0]
        warn(
            f"{printable(dataset.category)}: {len(duplicates.under_both_labels)} test image(s) are "
            f"there as good and as defective, {printable(good)} and {printable(defective)} for "
            "example; remove one of the two"
        )


def _load(config: Config, category: str, cache: Path | None) -> Dataset:
    if config.data.cache_dir:
        cache = Path(config.data.cache_dir).expanduser()
    if config.data.source == "mvtec":
        return folder.load_folder(config.data, category, cache)
    if config.data.source == "digits":
        return digits.load_digits(config.data, category)
    if config.data.source == "textures":
        if config.data.image_size != textures.CROP or config.data.channels != 1:
            raise ConfigError(
                f"data.image_size: the textures are {textures.CROP} px with data.channels=1"
            )
        if config.data.brightness != "kept":
            raise ConfigError("data.brightness: the textures come with their brightness 'kept'")
        return textures.load_textures(category, calibrate=config.data.calibration_fraction > 0)
    return prepared.load_prepared(config.data, category, cache)
