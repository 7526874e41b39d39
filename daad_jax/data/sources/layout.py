"""Where the good and the defective pictures of a category lie, and their masks. Opens no file."""

import dataclasses
import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from daad_jax.config import DataConfig, folder_names
from daad_jax.data import decode
from daad_jax.data.bad_files import BadFiles
from daad_jax.data.dataset import GOOD, Split, display_name, hold_out
from daad_jax.data.paths import (
    Tree,
    find,
    is_by_system,
    is_folder,
    list_folder,
    root_folder,
    same_name,
)
from daad_jax.errors import BadFileError, DataError, suggestion, warn

TEST_SHARE = 0.2
"""The value of `data.test_fraction` where the defective pictures lie beside the good ones."""
PAPER_CATEGORIES = (
    *("carpet", "grid", "leather", "tile", "wood"),
    *("bottle", "cable", "capsule", "hazelnut", "metal_nut"),
    *("pill", "screw", "toothbrush", "transistor", "zipper"),
)


class Listed(NamedTuple):
    """A picture: its file, its name for display, its kind ("good" or a defect) and its mask."""

    file: Path
    name: str
    kind: str
    mask: Path | None = None


class Category(NamedTuple):
    """The pictures of a category, by name.

    `folder` holds the good pictures in some layout, and `tested` the test pictures. `normal` are
    the good pictures that `split` divides. `test` are the other test pictures.
    """

    folder: Path
    tested: Path
    normal: list[Listed]
    split: Split
    test: list[Listed]

    @property
    def all_test(self) -> list[Listed]:
        """The good pictures that are tested on instead of trained on, then `test`."""
        return [*(self.normal[at] for at in self.split.test), *self.test]


def plain_name(category: str) -> str:
    """Returns a category's name without ``.`` and ``/`` that do not matter, such as in ``dog/``."""
    return os.path.join("", *Path(category).parts)


def is_category(config: DataConfig) -> bool:
    """Whether `data.root` is a category itself, and not a folder of categories.

    Raises ConfigError if it is empty, and DataError if it is not a folder or cannot be read.
    """
    root = root_folder(config)
    if _holds_good(root, config):
        return True
    inner = [entry for entry in list_folder(root) if is_folder(entry)]
    return not any(_holds_good(entry, config) for entry in inner) and _holds_pictures(root)


def category_names(config: DataConfig) -> list[str]:
    """Returns the folders under `data.root` that are categories: the paper's first, then by name.

    Raises DataError if there is none.
    """
    root = root_folder(config)
    itself, names = _holds_good(root, config), []
    for entry in [] if itself else list_folder(root):
        try:
            names += [entry.name] if _holds_good(entry, config) else []
        except DataError as error:
            warn(f"{error}; its folder is not used as a category")
    if not names:
        good = folder_names(config)[0][0]
        hint = f"expected CATEGORY/train/{good}"
        if itself or _holds_pictures(root):
            hint += " (it is a category itself: set data.category='')"
        elif inner := [entry.name for entry in list_folder(root) if is_folder(entry)]:
            hint += f"; there is {_some(inner)}, name the folder of good pictures with data.good"
        raise DataError(
            f"data.root: no folder with a train/{good} folder in it under {root}; {hint}"
        )
    known = [name for name in PAPER_CATEGORIES if name in names]
    return [*known, *(name for name in names if name not in known)]


def list_pictures(config: DataConfig, category: str, bad: BadFiles) -> Category:
    """Lists the pictures of a category, without those that lack a mask, and divides them.

    Raises ConfigError if `data.root` is empty, and DataError if a folder is missing, empty or
    unreadable. Files that cannot be used are added to `bad`.
    """
    tree = Tree(config, bad)
    folder = _category_folder(tree, config, category)
    taken = _good_folders(tree, config, folder)
    normal = [
        Listed(file, _name(file, folder), GOOD)
        for inner in taken
        for file in tree.list_images(inner)
    ]
    fraction = config.test_fraction
    if fraction is None:
        beside = config.bad and not os.path.lexists(find(folder, "test"))
        fraction = TEST_SHARE if beside else 0.0
    split = hold_out(len(normal), dataclasses.replace(config, test_fraction=fraction))
    if config.test_root:
        if not is_folder(Path(config.test_root)):
            raise DataError(
                f"data.test_root: {config.test_root} is not a folder; give the one with the test "
                "images"
            )
        tree = Tree(dataclasses.replace(config, root=config.test_root), bad)
        taken = []
    tested = find(tree.root, *Path(category).parts)
    return Category(folder, tested, normal, split, _list_test(tree, config, tested, taken))


def unused_pictures(found: Category, told: set[Path]) -> dict[str, int]:
    """Counts the pictures that lie where none are taken from, such as in folders of folders.

    `told` are files that are known not to be usable. Returns the number in each folder by its name.
    """
    listed = [*found.normal, *found.test]
    taken = {entry.file.parent for entry in listed}
    masks = {entry.mask for entry in listed}
    truth = find(found.tested, "ground_truth")
    tops = {*taken, *(find(found.folder, part) for part in ("train", "validation"))}
    tops |= {find(found.tested, "test"), *([truth] if any(masks) else [])}
    if not is_folder(find(found.folder, "train")):
        tops.add(found.folder)
    unused: dict[Path, int] = {}
    for top in tops:
        for folder, files in _walk(top):
            images = [path for path in files if path.suffix.lower() in decode.SUFFIXES]
            images = [path for path in images if path not in masks and path not in told]
            if images and folder not in taken:
                unused[folder] = len(images)
    # Masks of good images are empty, used or not.
    unused.pop(find(truth, GOOD), None)
    roots = {one: _root_of(one, found) for one in unused}
    return dict(sorted((_name(one, roots[one]), count) for one, count in unused.items()))


def _holds_good(folder: Path, config: DataConfig) -> bool:
    names = ["train", *folder_names(config)[0]]
    return any(is_folder(find(folder, name)) for name in names)


def _holds_pictures(folder: Path) -> bool:
    return any(entry.suffix.lower() in decode.SUFFIXES for entry in list_folder(folder))


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (" and others" if len(names) > 3 else "")


def _category_folder(tree: Tree, config: DataConfig, category: str) -> Path:
    if os.path.isabs(category) or ".." in Path(category).parts:
        raise DataError(f"data.category: {category!r} leads out of data.root; give a folder in it")
    folder = find(tree.root, *Path(category).parts)
    if not is_folder(folder):
        known = category_names(config)
        raise DataError(
            f"data.category: no {category!r} under {tree.root}; {suggestion(category, known)}"
        )
    tree.check_folder(folder)
    return folder


def _good_folders(tree: Tree, config: DataConfig, folder: Path) -> list[Path]:
    """The folders of good training pictures: in "train", else in the category, else itself."""
    names, top = folder_names(config)[0], find(folder, "train")
    base = top if is_folder(top) else folder
    found = [one for one in (find(base, name) for name in names) if is_folder(one)]
    if found:
        return found
    if base == folder and _holds_pictures(folder):
        return [folder]
    inner = [entry.name for entry in list_folder(base) if is_folder(entry)]
    there = f"; there is {_some(inner)}" if inner else ""
    raise DataError(
        f"{top / names[0]}: missing; put normal images there, or set data.category to the folder "
        f"in data.root that has it, or data.good to its name{there}"
    )


def _list_test(tree: Tree, config: DataConfig, root: Path, trained: list[Path]) -> list[Listed]:
    """Lists the test pictures in "test" or, without that folder, beside the good pictures."""
    good, bad = folder_names(config)
    top = find(root, "test")
    is_beside = bool(bad) and not os.path.lexists(top)
    if not is_beside and not config.test_root and not os.path.lexists(top):
        return []
    base, folders = (root, []) if is_beside else (top, tree.list_folders(top))
    if bad:
        defects = [_named(tree, base, name) for name in bad]
    else:
        keys = {same_name(name) for name in good}
        defects = [one for one in folders if same_name(one.name) not in keys]
    normal = [one for one in (find(base, name) for name in good) if is_folder(one)]
    listed = [
        Listed(file, _name(file, root), GOOD)
        for folder in normal
        if folder not in trained
        for file in tree.list_images(folder)
    ]
    for folder in defects:
        kind = display_name(folder.name)
        kind = f"folder {kind}" if kind == GOOD else kind
        masks = _masks(tree, root, folder)
        listed += [Listed(file, _name(file, root), kind, mask) for file, mask in masks.items()]
    return listed


def _named(tree: Tree, base: Path, name: str) -> Path:
    folder = find(base, name)
    if not is_folder(folder):
        known = [entry.name for entry in list_folder(base) if is_folder(entry)]
        raise DataError(f"data.bad: no folder {name!r} in {base}; {suggestion(name, known)}")
    tree.check_folder(folder)
    return folder


def _masks(tree: Tree, root: Path, folder: Path) -> dict[Path, Path | None]:
    """Returns the pictures of a folder with their masks, None if the category has no masks."""
    files, truth = tree.list_images(folder), find(root, "ground_truth")
    if not is_folder(truth) and not truth.is_symlink():
        return dict.fromkeys(files)
    tree.check_folder(truth)
    return dict(_find_masks(tree, find(truth, folder.name), files))


def _name(path: Path, root: Path) -> str:
    return display_name(path.relative_to(root))


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


def _root_of(folder: Path, found: Category) -> Path:
    return found.folder if folder.is_relative_to(found.folder) else found.tested


def _walk(top: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Yields the folders under a folder with their files. Linked folders are not gone into."""
    for folder, inner, files in os.walk(top):
        inner[:] = [name for name in inner if not is_by_system(name)]
        yield Path(folder), [Path(folder, name) for name in files if not is_by_system(name)]
        for link in (Path(folder, name) for name in inner if os.path.islink(Path(folder, name))):
            yield link, list_folder(link)
