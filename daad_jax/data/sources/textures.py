"""The embedded textures: crops of three photographs, with artificial defects made of real pixels.

The photographs (brick, grass, gravel; 512 x 512 grey) are part of the scikit-image package, so
nothing is downloaded. Each is divided into regions that share no pixel. Rows 160 to 255 and 416 to
511 are the test region. Of the other rows, columns 0 to 95 are the calibration region and the rest
is the training region. So both halves of a photograph are in the training and in the test set. All
random draws have fixed seeds: the same package versions give the same pixels on every machine.
"""

import io
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from daad_jax.config import DataConfig
from daad_jax.data.dataset import ALL, GOOD, Dataset, ImageSet
from daad_jax.data.shapes import blob_field, curve, rasterize
from daad_jax.errors import ConfigError, suggestion

CATEGORIES = ("brick", "grass", "gravel")
CROP = 64
TRAIN_CROPS = 1024
CALIBRATION_CROPS = 96
TEST_GOOD = 120
TEST_PER_KIND = 30
AREA_RANGE = (0.005, 0.05)
MIN_CHANGE = 1.0

Array = np.ndarray
Rng = np.random.Generator
Pair = tuple[Array, Array]
# A defect takes a float crop, its photograph, the other photographs and a random generator, and
# returns the changed crop and its mask.
Defect = Callable[[Array, Array, list[Array], Rng], Pair]

Region = tuple[int, int, int, int]
# The parts of each region: top, bottom, left and right in pixels.
TRAIN_REGION: tuple[Region, ...] = ((0, 160, 96, 512), (256, 416, 96, 512))
CALIBRATION_REGION: tuple[Region, ...] = ((0, 160, 0, 96), (256, 416, 0, 96))
TEST_REGION: tuple[Region, ...] = ((160, 256, 0, 512), (416, 512, 0, 512))


def list_categories(config: DataConfig) -> list[str]:
    """Returns the photographs that `data.category` stands for.

    Raises ConfigError if there is no such photograph.
    """
    if config.category == ALL:
        return list(CATEGORIES)
    if config.category not in CATEGORIES:
        raise ConfigError(
            f"data.category: no texture {config.category!r}; "
            f"{suggestion(config.category, CATEGORIES)}"
        )
    return [config.category]


def load(config: DataConfig, category: str, cache: Path | None) -> Dataset:
    """Makes the crops of one photograph, 64 x 64 grey.

    Args:
        config: must ask for 64 px, one channel and the brightness "kept". There are calibration
            images if `calibration_fraction` is above 0; they have a region of their own, whatever
            the fraction.
        category: "brick", "grass" or "gravel".
        cache: not used.

    Returns:
        The data set: 1,024 training crops; 96 calibration crops or none; 120 normal test crops and
        30 of each defect (patch, strip, scratch, stain), whose masks cover 0.5 to 5 % of a crop.

    Raises:
        ConfigError: if the config asks for another size, channels or brightness, or for a region
            to ignore.
    """
    if config.picture_size != (CROP, CROP) or config.channels != 1:
        raise ConfigError(
            f"data.image_size: the textures need data.image_size={CROP} and data.channels=1"
        )
    if config.brightness != "kept":
        raise ConfigError("data.brightness: the textures need data.brightness='kept'")
    if config.ignore:
        raise ConfigError("data.ignore: the textures have no region to ignore; leave it empty")
    photographs = {name: read_photograph(name) for name in CATEGORIES}
    own = photographs[category]
    others = [photographs[name] for name in CATEGORIES if name != category]
    rng = np.random.default_rng([2021, CATEGORIES.index(category)])
    train = _normal_set("train", _crops(own, TRAIN_REGION, TRAIN_CROPS, rng))
    held_out = _normal_set("calibration", _crops(own, CALIBRATION_REGION, CALIBRATION_CROPS, rng))
    test = _test_set(own, others, rng)
    calibration = held_out if config.calibration_fraction > 0 else held_out.take(slice(0))
    return Dataset(category, train, test, calibration)


def read_photograph(name: str) -> np.ndarray:
    """Reads one of the photographs, uint8 ``(512, 512)``, from the scikit-image package."""
    file = resources.files("skimage.data").joinpath(f"{name}.png")
    with Image.open(io.BytesIO(file.read_bytes())) as image:
        return np.asarray(image.convert("L"))


def _test_set(own: np.ndarray, others: list[np.ndarray], rng: Rng) -> ImageSet:
    good = _normal_set("test/good", _crops(own, TEST_REGION, TEST_GOOD, rng))
    images, masks, names, kinds = [], [], [], []
    for kind, make in _DEFECTS.items():
        for index, crop in enumerate(_crops(own, TEST_REGION, TEST_PER_KIND, rng)):
            image, mask = _visible_defect(make, crop, own, others, rng)
            images.append(image)
            masks.append(mask)
            names.append(f"test/{kind}/{index:03d}")
            kinds.append(kind)
    all_images = np.concatenate([good.images[..., 0], np.stack(images)])
    no_defect = np.zeros((TEST_GOOD, CROP, CROP), dtype=bool)
    return ImageSet(
        all_images[..., None],
        good.names + names,
        good.kinds + kinds,
        np.concatenate([no_defect, np.stack(masks)]),
    )


def _visible_defect(make: Defect, crop: Array, own: Array, others: list[Array], rng: Rng) -> Pair:
    """Draws a defect until its area is in `AREA_RANGE` and its change is large enough to see."""
    while True:
        image, mask = make(crop.astype(np.float64), own, others, rng)
        if not AREA_RANGE[0] <= mask.mean() <= AREA_RANGE[1]:
            continue
        image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
        change = (image.astype(np.float64) - crop)[mask]
        if np.sqrt(np.mean(np.square(change))) >= MIN_CHANGE * own.std():
            return image, mask


def _normal_set(prefix: str, crops: np.ndarray) -> ImageSet:
    names = [f"{prefix}/{index:04d}" for index in range(len(crops))]
    return ImageSet(crops[..., None], names, [GOOD] * len(crops))


def _crops(photograph: Array, region: tuple[Region, ...], count: int, rng: Rng) -> Array:
    """Cuts crops at random places of a region. All parts are equally likely."""
    crops = []
    for part in rng.integers(len(region), size=count):
        top, bottom, left, right = region[part]
        y, x = rng.integers(top, bottom - CROP + 1), rng.integers(left, right - CROP + 1)
        crops.append(photograph[y : y + CROP, x : x + CROP])
    return np.stack(crops)


def _blob(rng: Rng) -> np.ndarray:
    """A random connected region of 2 to 5 % of the crop."""
    return blob_field((CROP, CROP), (0.02, 0.047), rng) < 1.0


def _patch(crop: Array, own: Array, others: list[Array], rng: Rng) -> Pair:
    """A patch of another photograph at half scale, with the mean and contrast of its new place."""
    mask = _blob(rng)
    other = others[rng.integers(len(others))]
    small = shrink(other)
    foreign = _crops(small, ((0, small.shape[0], 0, small.shape[1]),), 1, rng)[0]
    standard = (foreign - foreign[mask].mean()) / (foreign[mask].std() + 1e-6)
    return np.where(mask, crop[mask].mean() + standard * crop.std(), crop), mask


def shrink(photograph: np.ndarray) -> np.ndarray:
    """Halves a photograph by averaging 2 x 2 pixels, float ``(H / 2, W / 2)``."""
    height, width = photograph.shape
    return photograph.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))


def _strip(crop: Array, own: Array, others: list[Array], rng: Rng) -> Pair:
    """A strip moved along its length. The gap behind it is dark."""
    thickness, length, shift = rng.integers(5, 8), rng.integers(12, 18), rng.integers(7, 12)
    across = rng.random() < 0.5
    moved = (crop.T if across else crop).copy()
    top, left = rng.integers(0, CROP - thickness), rng.integers(0, CROP - length - shift)
    rows = slice(top, top + thickness)
    moved[rows, left + shift : left + shift + length] = moved[rows, left : left + length].copy()
    shadow = own.min()
    moved[rows, left : left + shift] = shadow + 0.1 * (moved[rows, left : left + shift] - shadow)
    mask = np.zeros((CROP, CROP), dtype=bool)
    mask[rows, left : left + shift + length] = True
    return (moved.T, mask.T) if across else (moved, mask)


def _scratch(crop: Array, own: Array, others: list[Array], rng: Rng) -> Pair:
    """A thin, dark, curved groove with a bright edge. The texture remains visible."""
    start, end = rng.uniform(3, CROP - 3, size=(2, 2))
    path = curve(start, end, rng.normal(0.0, 4.0, size=2), CROP)
    groove = rasterize(path, (CROP, CROP))
    burr = rasterize(path + rng.choice([-1.0, 1.0], size=2), (CROP, CROP))
    depth = rng.uniform(2.5, 4.0) * own.std()
    scratched = crop - depth * groove + depth * (burr & ~groove)
    return scratched, groove | burr


def _stain(crop: Array, own: Array, others: list[Array], rng: Rng) -> Pair:
    """A stain that darkens or brightens the texture, which remains visible."""
    mask = _blob(rng)
    amount = rng.choice([-1.0, 1.0]) * rng.uniform(2.0, 3.0) * own.std()
    opacity = ndimage.gaussian_filter(mask.astype(np.float64), 0.5) * mask
    stained = crop[mask].mean() + 0.6 * (crop - crop[mask].mean()) + amount
    return crop + opacity * (stained - crop), mask


_DEFECTS: dict[str, Defect] = {
    "patch": _patch,
    "strip": _strip,
    "scratch": _scratch,
    "stain": _stain,
}
