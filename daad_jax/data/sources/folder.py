"""Folders of images: the MVTec AD layout, folders of good and bad pictures, or a flat folder.

::

    root/category/train/good/*.png
    root/category/test/good/*.png                           (optional, as all below)
    root/category/test/<defect>/*.png
    root/category/ground_truth/<defect>/<name>_mask.png

``test`` and ``ground_truth`` may be under ``data.test_root`` instead. Without ``train``, the good
pictures lie in ``root/category/good`` or directly in ``root/category``. ``data.good`` and
``data.bad`` name other folders.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from daad_jax.config import DataConfig
from daad_jax.data import decode
from daad_jax.data.bad_files import BadFiles
from daad_jax.data.dataset import ALL, Dataset, display_name
from daad_jax.data.encoded import EncodedImages, load_images, load_normal
from daad_jax.data.masks import PackedMask, decode_mask
from daad_jax.data.paths import root_folder
from daad_jax.data.pictures import picture_size
from daad_jax.data.sources.layout import (
    Category,
    Listed,
    category_names,
    list_pictures,
    plain_name,
    unused_pictures,
)
from daad_jax.errors import BadFileError, printable, warn

_NAMED = 5


def list_categories(config: DataConfig) -> list[str]:
    """Returns the categories that `data.category` stands for.

    For "all" these are the folders under `data.root` that hold a ``train`` folder or one of good
    pictures: MVTec AD's categories in the order of the paper's Table 1, then others by name. Their
    layout is checked without decoding an image.

    Raises ConfigError if `data.root` is empty, and DataError if the root holds no category, or if a
    folder or file of one cannot be used.
    """
    root_folder(config)
    if config.category != ALL:
        return [plain_name(config.category)]
    names = category_names(config)
    for name in names:
        list_pictures(config, name, BadFiles(config))
    return names


def load(config: DataConfig, category: str, cache: Path | None) -> Dataset:
    """Decodes and resizes every image of one category.

    `category` is the category's folder under `data.root`, or "" if `data.root` is the category
    itself. `cache` is a folder for arrays above `data.memory_limit_mb`. If it is None they stay in
    memory. Raises ConfigError if `data.root` is empty, and DataError if a folder is missing, empty
    or unreadable, or if too many files are. If `data.on_bad_file` is "stop", the first bad file
    raises BadFileError.
    """
    bad = BadFiles(config)
    category = plain_name(category)
    found = list_pictures(config, category, bad)
    train, calibration = load_normal(encode(found.normal), found.split, config, cache, bad)
    masked, masks = _load_masks(found.all_test, bad)
    test = load_images(encode(masked, masks), config, cache, bad)
    name = display_name(category or found.folder.resolve().name)
    bad.warn(name)
    _warn_of_unused(name, found, bad)
    return Dataset(name, train, test, calibration, len(bad.errors))


def encode(listed: Sequence[Listed], masks: list[PackedMask] | None = None) -> EncodedImages:
    """Returns listed pictures as images that can be decoded. `masks` are theirs."""
    files = [entry.file for entry in listed]
    return EncodedImages(
        names=[entry.name for entry in listed],
        kinds=[entry.kind for entry in listed],
        places=[str(file) for file in files],
        read=lambda index: decode.read_bytes(files[index]),
        masks=masks,
    )


def _load_masks(
    listed: list[Listed], bad: BadFiles
) -> tuple[list[Listed], list[PackedMask] | None]:
    """Decodes the masks. A normal image gets an empty one of its own size.

    Returns the images without those whose mask cannot be used, and the masks, or None if no image
    has one.
    """
    if all(entry.mask is None for entry in listed):
        return listed, None
    masks: list[PackedMask] = []
    kept: list[Listed] = []
    for entry in listed:
        with bad.collecting():
            size = _picture_size(entry.file)
            if entry.mask is None:
                mask = np.zeros((size or (1, 1))[::-1], bool)
            else:
                content, name = decode.read_bytes(entry.mask), str(entry.mask)
                mask = decode_mask(content, name, picture=size, note=bad.note)
            masks.append(PackedMask(mask))
            kept.append(entry)
    return kept, masks


def _picture_size(file: Path) -> tuple[int, int] | None:
    try:
        return picture_size(decode.read_bytes(file))
    except BadFileError:
        return None  # which is told of when the image is decoded


def _warn_of_unused(category: str, found: Category, bad: BadFiles) -> None:
    """Counts the images that lie where none are taken from, for example in folders of folders."""
    unused = unused_pictures(found, {Path(error.place) for error in bad.errors})
    if unused:
        names = list(map(printable, unused))
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        warn(
            f"{printable(category)}: {sum(unused.values())} image file(s) are not used, in "
            f"{', '.join(names[:_NAMED])}{more}; images are taken from train/good, test/good and "
            "test/DEFECT themselves, or from the folders that data.good and data.bad name, masks "
            "by the name of their image"
        )
