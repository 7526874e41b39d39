"""Folders of images in the MVTec AD layout.

::

    root/category/train/good/*.png
    root/category/test/good/*.png                           (optional, as all below)
    root/category/test/<defect>/*.png
    root/category/ground_truth/<defect>/<name>_mask.png

``test`` and ``ground_truth`` may be under ``data.test_root`` instead.
"""

import dataclasses
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from daad_jax.config import DataConfig
from daad_jax.data import decode
from daad_jax.data.bad_files import BadFiles
from daad_jax.data.dataset import ALL, GOOD, Dataset, display_name
from daad_jax.data.encoded import EncodedImages, load_images, load_normal
from daad_jax.data.paths import Tree, is_folder, list_folder, root_folder
from daad_jax.errors import BadFileError, DataError, suggestion, warn

PAPER_CATEGORIES = (
    *("carpet", "grid", "leather", "tile", "wood"),
    *("bottle", "cable", "capsule", "hazelnut", "metal_nut"),
    *("pill", "screw", "toothbrush", "transistor", "zipper"),
)


def list_categories(config: DataConfig) -> list[str]:
    """Returns the categories that `data.category` stands for.

    For "all" these are the folders under `data.root` that hold a ``train`` folder: MVTec AD's
    categories in the order of the paper's Table 1, then others by name. Their layout is checked
    without decoding an image.

    Raises ConfigError if `data.root` is empty, and DataError if the root holds no category, or if a
    folder or file of one cannot be used.
    """
    root = root_folder(config)
    if config.category != ALL:
        return [config.category]
    names = _category_names(root)
    for name in names:
        _list_images(config, name, BadFiles(config))
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
    folder, normal, tested, listed = _list_images(config, category, bad)
    train, calibration = load_normal(_encode(folder, normal), config, cache, bad)
    masked, masks = _load_masks(listed, config.image_size, bad)
    test = load_images(_encode(tested, masked, masks), config, cache, bad)
    name = display_name(category or folder.resolve().name)
    bad.warn(name)
    return Dataset(name, train, test, calibration, len(bad.errors))


class _Listed(NamedTuple):
    file: Path
    kind: str
    mask: Path | None = None


class _Category(NamedTuple):
    """The folder with ``train`` and its images, and the folder with ``test`` and its images."""

    folder: Path
    normal: list[_Listed]
    tested: Path
    test: list[_Listed]


def _category_names(root: Path) -> list[str]:
    names = [entry.name for entry in list_folder(root) if _holds_train(entry)]
    known = [name for name in PAPER_CATEGORIES if name in names]
    names = [*known, *(name for name in names if name not in known)]  # both in order
    if not names:
        is_category = is_folder(root / "train" / GOOD)
        hint = " (it is a category itself: set data.category='')" if is_category else ""
        raise DataError(
            f"data.root: no folder with a train/good folder in it under {root}{hint}; expected "
            "CATEGORY/train/good"
        )
    return names


def _holds_train(folder: Path) -> bool:
    try:
        return is_folder(folder / "train")
    except DataError as error:
        warn(f"{error}; its folder is not used as a category")
        return False


def _category_folder(tree: Tree, category: str) -> Path:
    if os.path.isabs(category) or ".." in Path(category).parts:
        raise DataError(f"data.category: {category!r} leads out of data.root; give a folder in it")
    folder = tree.root / category
    if not is_folder(folder):
        known = _category_names(tree.root)
        raise DataError(
            f"data.category: no {category!r} under {tree.root}; {suggestion(category, known)}"
        )
    tree.check_folder(folder)
    if not is_folder(folder / "train" / GOOD):
        raise DataError(
            f"{folder / 'train' / GOOD}: missing; put normal images there, or set data.category to "
            "the folder in data.root that has it"
        )
    return folder


def _list_images(config: DataConfig, category: str, bad: BadFiles) -> _Category:
    """Lists the images of a category without those that lack a mask. Normal ones come first."""
    tree = Tree(config, bad)
    folder = _category_folder(tree, category)
    normal = [_Listed(file, GOOD) for file in tree.list_images(folder / "train" / GOOD)]
    if config.test_root:
        if not is_folder(Path(config.test_root)):
            raise DataError(
                f"data.test_root: {config.test_root} is not a folder; give the one with the test "
                "images"
            )
        tree = Tree(dataclasses.replace(config, root=config.test_root), bad)
    tested = tree.root / category
    if config.test_root or os.path.lexists(tested / "test"):
        return _Category(folder, normal, tested, _list_test(tree, tested))
    return _Category(folder, normal, tested, [])


def _list_test(tree: Tree, root: Path) -> list[_Listed]:
    folders = tree.list_folders(root / "test")
    defects = [folder for folder in folders if folder.name != GOOD]
    listed = []
    if len(defects) < len(folders):
        listed = [_Listed(file, GOOD) for file in tree.list_images(root / "test" / GOOD)]
    truth = root / "ground_truth"
    has_masks = is_folder(truth) or truth.is_symlink()
    if has_masks:
        tree.check_folder(truth)
    for folder in defects:
        files, kind = tree.list_images(folder), display_name(folder.name)
        if has_masks:
            masks = _find_masks(tree, truth / folder.name, files)
            listed += [_Listed(file, kind, mask) for file, mask in masks.items()]
        else:
            listed += [_Listed(file, kind) for file in files]
    return listed


def _find_masks(tree: Tree, folder: Path, files: list[Path]) -> dict[Path, Path]:
    """Returns the masks by file. Files without one are added to `Tree.bad`."""
    names = set()
    if is_folder(folder):
        tree.check_folder(folder)
        names = {entry.name for entry in list_folder(folder)}
    masks = {}
    for file in files:
        with tree.bad.collecting():
            mask = folder / _mask_name(folder, names, file)
            tree.check_file(mask)
            masks[file] = mask
    return masks


def _mask_name(folder: Path, names: set[str], file: Path) -> str:
    for stem in (f"{file.stem}_mask", file.stem):
        for suffix in decode.SUFFIXES:
            if f"{stem}{suffix}" in names:
                return f"{stem}{suffix}"
    raise BadFileError(
        f"{folder / file.stem}_mask.png",
        f"the mask of {file} is missing; add it, or remove the ground_truth folder to evaluate "
        "without pixel scores",
    )


def _load_masks(
    listed: list[_Listed], size: int, bad: BadFiles
) -> tuple[list[_Listed], np.ndarray | None]:
    """Decodes the masks. A normal image gets an empty one.

    Returns the images without those whose mask cannot be used, and the masks, bool
    ``(n, size, size)``, or None if no image has one.
    """
    if all(entry.mask is None for entry in listed):
        return listed, None
    masks = np.zeros((len(listed), size, size), dtype=bool)
    kept: list[_Listed] = []
    for entry in listed:
        with bad.collecting():
            if entry.mask is not None:
                content = decode.read_bytes(entry.mask)
                masks[len(kept)] = decode.decode_mask(content, str(entry.mask), size=size)
            kept.append(entry)
    return kept, masks[: len(kept)]


def _encode(root: Path, listed: list[_Listed], masks: np.ndarray | None = None) -> EncodedImages:
    files = [entry.file for entry in listed]
    return EncodedImages(
        names=[display_name(file.relative_to(root)) for file in files],
        kinds=[entry.kind for entry in listed],
        places=[str(file) for file in files],
        read=lambda index: decode.read_bytes(files[index]),
        masks=masks,
    )
