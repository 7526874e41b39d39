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
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from daad_jax.config import DataConfig
from daad_jax.data import decode
from daad_jax.data import masks as mask_lib
from daad_jax.data.bad_files import BadFiles
from daad_jax.data.dataset import ALL, GOOD, Dataset, display_name
from daad_jax.data.encoded import EncodedImages, load_images, load_normal
from daad_jax.data.frame import picture_box
from daad_jax.data.paths import (
    Tree,
    find,
    is_by_system,
    is_folder,
    list_folder,
    root_folder,
    same_name,
)
from daad_jax.data.pictures import picture_size
from daad_jax.errors import BadFileError, DataError, printable, suggestion, warn

_NAMED = 5
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
        return [_plain(config.category)]
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
    category = _plain(category)
    found = _list_images(config, category, bad)
    train, calibration = load_normal(_encode(found.folder, found.normal), config, cache, bad)
    masked, masks = _load_masks(found.test, config, bad)
    test = load_images(_encode(found.tested, masked, masks), config, cache, bad)
    name = display_name(category or found.folder.resolve().name)
    bad.warn(name)
    _warn_of_unused(name, found, bad)
    return Dataset(name, train, test, calibration, len(bad.errors))


class _Listed(NamedTuple):
    file: Path
    kind: str
    mask: Path | None = None


def _plain(category: str) -> str:
    """Returns a category's name without ``.`` and ``/`` that do not matter, such as in ``dog/``."""
    return os.path.join("", *Path(category).parts)


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
    folder = find(tree.root, *Path(category).parts)
    if not is_folder(folder):
        known = _category_names(tree.root)
        raise DataError(
            f"data.category: no {category!r} under {tree.root}; {suggestion(category, known)}"
        )
    tree.check_folder(folder)
    if not is_folder(find(folder, "train", GOOD)):
        raise DataError(
            f"{folder / 'train' / GOOD}: missing; put normal images there, or set data.category to "
            "the folder in data.root that has it"
        )
    return folder


def _list_images(config: DataConfig, category: str, bad: BadFiles) -> _Category:
    """Lists the images of a category without those that lack a mask. Normal ones come first."""
    tree = Tree(config, bad)
    folder = _category_folder(tree, category)
    normal = [_Listed(file, GOOD) for file in tree.list_images(find(folder, "train", GOOD))]
    if config.test_root:
        if not is_folder(Path(config.test_root)):
            raise DataError(
                f"data.test_root: {config.test_root} is not a folder; give the one with the test "
                "images"
            )
        tree = Tree(dataclasses.replace(config, root=config.test_root), bad)
    tested = find(tree.root, *Path(category).parts)
    if config.test_root or os.path.lexists(find(tested, "test")):
        return _Category(folder, normal, tested, _list_test(tree, tested))
    return _Category(folder, normal, tested, [])


def _list_test(tree: Tree, root: Path) -> list[_Listed]:
    folders = tree.list_folders(find(root, "test"))
    defects = [folder for folder in folders if same_name(folder.name) != GOOD]
    listed = []
    if len(defects) < len(folders):
        listed = [_Listed(file, GOOD) for file in tree.list_images(find(root, "test", GOOD))]
    truth = find(root, "ground_truth")
    has_masks = is_folder(truth) or truth.is_symlink()
    if has_masks:
        tree.check_folder(truth)
    for folder in defects:
        files, kind = tree.list_images(folder), display_name(folder.name)
        if has_masks:
            masks = _find_masks(tree, find(truth, folder.name), files)
            listed += [_Listed(file, kind, mask) for file, mask in masks.items()]
        else:
            listed += [_Listed(file, kind) for file in files]
    return listed


def _find_masks(tree: Tree, folder: Path, files: list[Path]) -> dict[Path, Path]:
    """Returns the masks by file. Files without one are added to `Tree.bad`."""
    names: dict[tuple[str, str], str] = {}
    if is_folder(folder):
        tree.check_folder(folder)
        for entry in list_folder(folder):
            names.setdefault(_mask_key(entry.stem, entry.suffix), entry.name)
    masks = {}
    for file in files:
        with tree.bad.collecting():
            mask = folder / _mask_name(folder, names, file)
            tree.check_file(mask)
            masks[file] = mask
    return masks


def _mask_key(stem: str, suffix: str) -> tuple[str, str]:
    """Returns what a mask's name is found by: case counts in the name of its image alone."""
    stem = unicodedata.normalize("NFC", stem)
    if stem.lower().endswith("_mask"):
        stem = f"{stem[:-5]}_mask"
    return stem, suffix.lower()


def _mask_name(folder: Path, names: dict[tuple[str, str], str], file: Path) -> str:
    for stem in (f"{file.stem}_mask", file.stem):
        for suffix in decode.SUFFIXES:
            if (key := _mask_key(stem, suffix)) in names:
                return names[key]
    raise BadFileError(
        f"{folder / file.stem}_mask.png",
        f"the mask of {file} is missing; add it, or remove the ground_truth folder to evaluate "
        "without pixel scores",
    )


def _load_masks(
    listed: list[_Listed], config: DataConfig, bad: BadFiles
) -> tuple[list[_Listed], np.ndarray | None]:
    """Decodes the masks. A normal image gets an empty one.

    Returns the images without those whose mask cannot be used, and the masks, bool ``(n, H, W)``,
    or None if no image has one.
    """
    if all(entry.mask is None for entry in listed):
        return listed, None
    masks = np.zeros((len(listed), *config.picture_size), dtype=bool)
    kept: list[_Listed] = []
    for entry in listed:
        with bad.collecting():
            if entry.mask is not None:
                picture = _picture_size(entry.file)
                box = picture_box((picture or config.picture_size)[::-1], config)
                masks[len(kept)][box.region] = mask_lib.decode_mask(
                    decode.read_bytes(entry.mask),
                    str(entry.mask),
                    size=(box.height, box.width),
                    picture=picture,
                    note=bad.note,
                )
            kept.append(entry)
    return kept, masks[: len(kept)]


def _picture_size(file: Path) -> tuple[int, int] | None:
    try:
        return picture_size(decode.read_bytes(file))
    except BadFileError:
        return None  # which is told of when the image is decoded


def _warn_of_unused(category: str, found: _Category, bad: BadFiles) -> None:
    """Counts the images that lie where none are taken from, for example in folders of folders."""
    listed = [*found.normal, *found.test]
    taken = {entry.file.parent for entry in listed}
    masks = {entry.mask for entry in listed}
    told = {Path(error.place) for error in bad.errors}
    truth = find(found.tested, "ground_truth")
    tops = {*taken, *(find(found.folder, part) for part in ("train", "validation"))}
    tops |= {find(found.tested, "test"), *([truth] if any(masks) else [])}
    unused: dict[Path, int] = {}
    for top in tops:
        for folder, files in _walk(top):
            images = [path for path in files if path.suffix.lower() in decode.SUFFIXES]
            images = [path for path in images if path not in masks and path not in told]
            if images and folder not in taken:
                unused[folder] = len(images)
    # Masks of good images are empty, used or not.
    unused.pop(find(truth, GOOD), None)
    if unused:
        roots = {folder: _root_of(folder, found) for folder in unused}
        names = sorted(
            printable(display_name(one.relative_to(root))) for one, root in roots.items()
        )
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        warn(
            f"{printable(category)}: {sum(unused.values())} image file(s) are not used, in "
            f"{', '.join(names[:_NAMED])}{more}; images are taken from train/good, test/good and "
            "test/DEFECT themselves, masks by the name of their image"
        )


def _root_of(folder: Path, found: _Category) -> Path:
    return found.folder if folder.is_relative_to(found.folder) else found.tested


def _walk(top: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Yields the folders under a folder with their files. Linked folders are not gone into."""
    for folder, inner, files in os.walk(top):
        inner[:] = [name for name in inner if not is_by_system(name)]
        yield Path(folder), [Path(folder, name) for name in files if not is_by_system(name)]
        for link in (Path(folder, name) for name in inner if os.path.islink(Path(folder, name))):
            yield link, list_folder(link)


def _encode(root: Path, listed: list[_Listed], masks: np.ndarray | None = None) -> EncodedImages:
    files = [entry.file for entry in listed]
    return EncodedImages(
        names=[display_name(file.relative_to(root)) for file in files],
        kinds=[entry.kind for entry in listed],
        places=[str(file) for file in files],
        read=lambda index: decode.read_bytes(files[index]),
        masks=masks,
    )
