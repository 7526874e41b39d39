"""Folders in the MVTec AD layout.

::

    root/category/train/good/*.png
    root/category/test/good/*.png
    root/category/test/<defect>/*.png
    root/category/ground_truth/<defect>/<name>_mask.png     (optional)

A plain folder with only ``train/good`` and ``test/{good,bad}`` is the same without masks.
"""

from pathlib import Path

import numpy as np

from daad_jax.config import DataConfig
from daad_jax.data import images
from daad_jax.data.dataset import GOOD, Dataset, ImageSet, display_name, hold_out
from daad_jax.data.encoded import EncodedImages, load_images
from daad_jax.errors import DataError, suggestion

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
    if not root.is_dir():
        raise DataError(f"data.root: {root} is not a folder; give the one that holds the images")
    names = [entry.name for entry in root.iterdir() if (entry / "train").is_dir()]
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
    root = _category_root(config, category)
    _list_images(root / "train" / GOOD)
    files, _ = _list_test(root)
    if (root / "ground_truth").is_dir():
        for file in files:
            if file.parent.name != GOOD:
                _mask_path(root / "ground_truth" / file.parent.name, file)


def load_folder(config: DataConfig, category: str, cache: Path | None) -> Dataset:
    """Decodes and resizes every image of one category.

    Args:
        config: root, size, channels, filter and calibration fraction.
        category: the category's folder; "" when `config.root` is one itself.
        cache: see `daad_jax.data.encoded.load_images`.

    Returns:
        The data set. Calibration images are the last of the sorted training images.

    Raises:
        DataError: if a folder or image is missing, empty, damaged or of no use.
    """
    root = _category_root(config, category)
    good = _list_images(root / "train" / GOOD)
    files, kinds = _list_test(root)
    normal = _load(root, good, [GOOD] * len(good), config, cache)
    train, calibration = hold_out(normal, config.calibration_fraction)
    test = _load(root, files, kinds, config, cache)
    masks = _load_masks(root, files, config.image_size)
    test = ImageSet(test.images, test.names, test.file_sizes, test.kinds, masks)
    return Dataset(display_name(category or root.resolve().name), train, test, calibration)


def _category_root(config: DataConfig, category: str) -> Path:
    root = Path(config.root)
    if not root.is_dir():
        raise DataError(f"data.root: {root} is not a folder; give the one that holds the images")
    folder = root / category
    if not folder.is_dir():
        known = list_categories(root)
        raise DataError(
            f"data.category: no {category!r} under {root}; {suggestion(category, known)}"
        )
    for part in (Path("train") / GOOD, Path("test") / GOOD):
        if not (folder / part).is_dir():
            raise DataError(
                f"{folder / part}: missing; expected train/good, test/good and test/DEFECT folders"
            )
    return folder


def _paper_place(name: str) -> int:
    known = name in PAPER_CATEGORIES
    return PAPER_CATEGORIES.index(name) if known else len(PAPER_CATEGORIES)


def _is_category(folder: Path) -> bool:
    return (folder / "train" / GOOD).is_dir()


def _list_images(folder: Path) -> list[Path]:
    """Sorted image files of a folder, at least one."""
    files = sorted(
        entry for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith(".")
    )
    if not files:
        raise DataError(f"{folder}: empty; put images there ({', '.join(images.SUFFIXES)})")
    for file in files:
        if file.suffix.lower() not in images.SUFFIXES:
            raise DataError(
                f"{file}: is not an image ({', '.join(images.SUFFIXES)}); move it elsewhere"
            )
    return files


def _list_test(root: Path) -> tuple[list[Path], list[str]]:
    folders = sorted(entry for entry in (root / "test").iterdir() if entry.is_dir())
    defects = [folder for folder in folders if folder.name != GOOD]
    if not defects:
        raise DataError(
            f"{root / 'test'}: no folder with defective images beside 'good'; put them in "
            "test/bad or in a folder for each kind of defect"
        )
    files, kinds = [], []
    for folder in [root / "test" / GOOD, *defects]:
        listed = _list_images(folder)
        files += listed
        kinds += [display_name(folder.name)] * len(listed)
    return files, kinds


def _load(
    root: Path, files: list[Path], kinds: list[str], config: DataConfig, cache: Path | None
) -> ImageSet:
    encoded = EncodedImages(
        names=[display_name(file.relative_to(root)) for file in files],
        kinds=kinds,
        places=[str(file) for file in files],
        read=lambda index: images.read_bytes(files[index]),
    )
    return load_images(encoded, config, cache)


def _load_masks(root: Path, files: list[Path], size: int) -> np.ndarray | None:
    """Masks of all test images, false for good ones; None when there is no `ground_truth`."""
    truth = root / "ground_truth"
    if not truth.is_dir():
        return None
    masks = np.zeros((len(files), size, size), dtype=bool)
    for index, file in enumerate(files):
        if file.parent.name != GOOD:
            path = _mask_path(truth / file.parent.name, file)
            masks[index] = images.decode_mask(images.read_bytes(path), str(path), size=size)
    return masks


def _mask_path(folder: Path, file: Path) -> Path:
    for stem in (f"{file.stem}_mask", file.stem):
        for suffix in images.SUFFIXES:
            if (folder / f"{stem}{suffix}").is_file():
                return folder / f"{stem}{suffix}"
    raise DataError(
        f"{folder / file.stem}_mask.png: the mask of {file} is missing; add it, or move the "
        "ground_truth folder away to go without pixel scores"
    )
