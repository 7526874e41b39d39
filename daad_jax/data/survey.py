"""Reads every file of a folder of images without stopping at those that cannot be used."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from daad_jax.config import DataConfig
from daad_jax.data.bad_files import BadFiles
from daad_jax.data.dataset import Dataset, display_name
from daad_jax.data.decode import decode_image, read_bytes
from daad_jax.data.encoded import EncodedImages, in_threads, load_images
from daad_jax.data.masks import decode_mask
from daad_jax.data.pictures import Header, picture_size, read_header
from daad_jax.data.sources.folder import encode
from daad_jax.data.sources.layout import Listed, list_pictures, plain_name, unused_pictures
from daad_jax.errors import BadFileError

SIZE = 64
"""Height and width of the small pictures that are looked at."""
_ANY_NUMBER = 10**9
_MEMORY_MB = 256


@dataclass(frozen=True)
class Survey:
    """What is in a folder of images.

    Attributes:
        dataset: the pictures at 64 x 64 in colour. Its training images include those that would be
            held out for calibration.
        calibration: how many of the training images would be held out.
        headers: what each file says of its picture, by the picture's name.
        files: the file of each picture, by the picture's name.
        broken: the files that cannot be used, with the reason.
        notes: files that are used, but not as it may seem, by a sentence.
        unused: the number of image files in folders that are not used, by folder.
        has_masks: whether defective pictures have masks.
        defects: the area of each defect in the masks as a share of its picture, float ``(k,)``.
    """

    dataset: Dataset
    calibration: int
    headers: dict[str, Header]
    files: dict[str, Path]
    broken: list[BadFileError]
    notes: dict[str, list[str]]
    unused: dict[str, int]
    has_masks: bool
    defects: np.ndarray


def survey(config: DataConfig, cache: Path) -> Survey:
    """Reads every picture and mask of the category `data.category` of a folder.

    `cache` is a folder for small pictures that do not fit into 256 MiB. Files that cannot be used
    are collected. Raises ConfigError and DataError if the folders cannot be used.
    """
    config = dataclasses.replace(
        config.located(),
        image_size=SIZE,
        channels=3,
        brightness="kept",
        on_bad_file="skip",
        max_bad_files=_ANY_NUMBER,
        memory_limit_mb=_MEMORY_MB,
    )
    bad, category = BadFiles(config), plain_name(config.category)
    found = list_pictures(config, category, bad)
    trained = np.sort(np.concatenate([found.split.train, found.split.calibration]))
    normal, tested = [found.normal[at] for at in trained], found.all_test
    headers: dict[str, Header] = {}
    train = load_images(_noting(normal, headers), config, cache, bad)
    test = load_images(_noting(tested, headers), config, cache, bad)
    areas = _defect_areas([one for one in tested if one.mask is not None], bad)
    name = display_name(category or found.folder.resolve().name)
    return Survey(
        dataset=Dataset(name, train, test, train.take(slice(0))),
        calibration=len(found.split.calibration),
        headers=headers,
        files={one.name: one.file for one in [*normal, *tested]},
        broken=bad.errors,
        notes=bad.notes,
        unused=unused_pictures(found, {Path(error.place) for error in bad.errors}),
        has_masks=any(one.mask is not None for one in tested),
        defects=areas,
    )


def show_picture(survey: Survey, name: str, config: DataConfig, most: int) -> np.ndarray | None:
    """Decodes a picture again to look at it.

    Returns uint8 ``(H, W, 3)``, at most `most` pixels high and wide, with the picture's shape, or
    None if its file cannot be used any more.
    """
    square = dataclasses.replace(config, image_size=most, channels=3, brightness="kept")
    file, (width, height) = survey.files[name], survey.headers[name].size
    try:
        pixels = decode_image(read_bytes(file), name, square)
    except BadFileError:
        return None
    scale = most / max(width, height)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def _noting(listed: Sequence[Listed], headers: dict[str, Header]) -> EncodedImages:
    """Images that note what their files say of them while they are read."""
    encoded = encode(listed)

    def read(index: int) -> bytes | np.ndarray:
        content = encoded.read(index)
        if isinstance(content, bytes) and (header := read_header(content)):
            headers[listed[index].name] = header
        return content

    return dataclasses.replace(encoded, read=read)


def _defect_areas(masked: Sequence[Listed], bad: BadFiles) -> np.ndarray:
    def areas(index: int) -> np.ndarray:
        entry = masked[index]
        mask = decode_mask(
            read_bytes(entry.mask or entry.file),
            str(entry.mask),
            picture=picture_size(read_bytes(entry.file)),
            note=bad.note,
        )
        return np.bincount(ndimage.label(mask, np.ones((3, 3)))[0].ravel())[1:] / mask.size

    told = {error.place for error in bad.errors}
    found = [np.zeros(0)]
    for result in in_threads(areas, len(masked), "masks"):
        if isinstance(result, BadFileError):
            if result.place not in told:
                bad.add(result)
        else:
            found.append(result)
    return np.concatenate(found)
