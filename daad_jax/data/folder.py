"""Folders in the MVTec AD layout.

::

    root/category/train/good/*.png
    root/category/test/good/*.png
    root/category/test/<defect>/*.png
    root/category/ground_truth/<defect>/<name>_mask.png     (optional)

A plain folder with only ``train/good`` and ``test/{good,bad}`` is the same without masks.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from daad_jax.config import DataConfig
from daad_jax.data import images
from daad_jax.data.bad_files import BadFiles
from daad_jax.data.dataset import GOOD, Dataset, display_name, hold_out
from daad_jax.data.encoded import EncodedImages, load_images
from daad_jax.data.paths import Tree, check_root, is_folder, list_folder
from daad_jax.errors import BadFileError, DataError, suggestion, warn

PAPER_CATEGORIES = (
    *("carpet", "grid", "leather", "tile", "wood"),
    *("bottle", "cable", "capsule", "hazelnut", "metal_nut"),
    *("pill", "screw", "toothbrush", "transistor", "zipper"),
)


def list_categories(root: Path) -> list[str]:
    """Returns the folders of `root` that hold a `train` folder.

    MVTec AD's categories come in the order of the paper's Table 1, others after them by name.

    Raises:
        DataError: if `root` is missing or holds none.
    """
    check_root(root)
    names = [entry.name for entry in list_folder(root) if _holds_train(entry)]
    names.sort(key=lambda name: (_paper_place(name), name))
    if not names:
        hint = " (it is a category itself: set data.category='')" if _is_category(root) else ""
        raise DataError(
            f"data.root: no folder with a train/good folder in it under {root}{hint}; expected "
            "CATEGORY/train/good and CATEGORY/test/DEFECT"
        )
    return names


def check_layout(config: DataConfig, category: str) -> None:
    """Checks that a category's folders hold what `load_folder` needs, without decoding anything.

    Raises:
        DataError: naming the folder or file that is missing or of no use.
    """
    tree = Tree(config, BadFiles(config))
    root = _category_root(tree, config, category)
    tree.list_images(root / "train" / GOOD)
    _list_test(tree, root)


def load_folder(config: DataConfig, category: str, cache: Path | None) -> Dataset:
    """Decodes and resizes every image of one category.

    Args:
        config: root, size, channels, filter, calibration fraction, and what becomes of files that
            cannot be used.
        category: the category's folder; "" when `config.root` is one itself.
        cache: see `daad_jax.data.encoded.load_images`.

    Returns:
        The data set. Calibration images are the last of the sorted training images.

    Raises:
        DataError: if a folder is missing, empty or of no use, or too many files are.
        BadFileError: if a file is, and `config.on_bad_file` is "stop".
    """
    bad = BadFiles(config)
    tree = Tree(config, bad)
    root = _category_root(tree, config, category)
    good = [_Listed(file, GOOD) for file in tree.list_images(root / "train" / GOOD)]
    listed = _list_test(tree, root)
    normal = load_images(_encode(root, good), config, cache, bad)
    train, calibration = hold_out(normal, config.calibration_fraction)
    masked, masks = _load_masks(listed, config.image_size, bad)
    test = load_images(_encode(root, masked, masks), config, cache, bad)
    name = display_name(category or root.resolve().name)
    bad.warn(name)
    return Dataset(name, train, test, calibration, len(bad.errors))


class _Listed(NamedTuple):
    file: Path
    kind: str
    mask: Path | None = None


def _category_root(tree: Tree, config: DataConfig, category: str) -> Path:
    root = Path(config.root)
    if os.path.isabs(category) or ".." in Path(category).parts:
        raise DataError(f"data.category: {category!r} leads out of data.root; give a folder in it")
    folder = root / category
    if not is_folder(folder):
        known = list_categories(root)
        raise DataError(
            f"data.category: no {category!r} under {root}; {suggestion(category, known)}"
        )
    tree.check_folder(folder)
    for part in (Path("train") / GOOD, Path("test") / GOOD):
        if not is_folder(folder / part):
            raise DataError(
                f"{folder / part}: missing; expected train/good, test/good and test/DEFECT folders"
            )
    return folder


def _holds_train(folder: Path) -> bool:
    try:
        return is_folder(folder / "train")
    except DataError as error:
        warn(f"{error}; it is not taken for a category")
        return False


def _paper_place(name: str) -> int:
    known = name in PAPER_CATEGORIES
    return PAPER_CATEGORIES.index(name) if known else len(PAPER_CATEGORIES)


def _is_category(folder: Path) -> bool:
    return is_folder(folder / "train" / GOOD)


def _list_test(tree: Tree, root: Path) -> list[_Listed]:
    """The test images, good ones first, without those whose mask is missing."""
    defects = [folder for folder in tree.list_folders(root / "test") if folder.name != GOOD]
    if not defects:
        raise DataError(
            f"{root / 'test'}: no folder with defective images beside 'good'; put them in "
            "test/bad or in a folder for each kind of defect"
        )
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
    """The masks of the files that have one; the others go to `Tree.bad`."""
    names = set()
    if is_folder(folder):
        tree.check_folder(folder)
        names = {entry.name for entry in list_folder(folder)}
    masks = {}
    for file in files:
        try:
            mask = folder / _mask_name(folder, names, file)
            tree.check_file(mask)
        except BadFileError as error:
            tree.bad.add(error)
        else:
            masks[file] = mask
    return masks


def _mask_name(folder: Path, names: set[str], file: Path) -> str:
    for stem in (f"{file.stem}_mask", file.stem):
        for suffix in images.SUFFIXES:
            if f"{stem}{suffix}" in names:
                return f"{stem}{suffix}"
    raise BadFileError(
        f"{folder / file.stem}_mask.png",
        f"the mask of {file} is missing; add it, or move the ground_truth folder away to go "
        "without pixel scores",
    )


def _load_masks(
    listed: list[_Listed], size: int, bad: BadFiles
) -> tuple[list[_Listed], np.ndarray | None]:
    """The images without those whose mask cannot be used, and the masks, false for good images.

    The masks are None when no image has one.
    """
    if all(entry.mask is None for entry in listed):
        return listed, None
    masks = np.zeros((len(listed), size, size), dtype=bool)
    kept: list[_Listed] = []
    for entry in listed:
        if entry.mask is not None:
            try:
                content = images.read_bytes(entry.mask)
                masks[len(kept)] = images.decode_mask(content, str(entry.mask), size=size)
            except BadFileError as error:
                bad.add(error)
                continue
        kept.append(entry)
    return kept, masks[: len(kept)]


def _encode(root: Path, listed: list[_Listed], masks: np.ndarray | None = None) -> EncodedImages:
    files = [entry.file for entry in listed]
    return EncodedImages(
        names=[display_name(file.relative_to(root)) for file in files],
        kinds=[entry.kind for entry in listed],
        places=[str(file) for file in files],
        read=lambda index: images.read_bytes(files[index]),
        masks=masks,
    )
