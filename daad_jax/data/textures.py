"""The embedded textures: crops of three photographs, with defects made from real pixels.

The photographs (brick, grass, gravel; 512 x 512 grey) travel in the scikit-image wheel, so nothing
is downloaded. Each is cut into regions that share no pixel: rows 160 to 255 and 416 to 511 to test;
of the rest, columns 0 to 95 to calibrate and the others to train. So both halves of a photograph
are trained on and tested on. Everything is drawn from fixed seeds: the same version makes the same
pixels on every machine.
"""

import io
from collections.abc import Callable
from importlib import resources

import numpy as np
from PIL import Image
from scipy import ndimage

from daad_jax.data.dataset import GOOD, Dataset, ImageSet
from daad_jax.data.shapes import blob_field, curve, rasterize

CATEGORIES = ("brick", "grass", "gravel")
CROP = 64
TRAIN_CROPS = 1024
CALIBRATION_CROPS = 96
TEST_GOOD = 120
TEST_PER_KIND = 30
AREA_RANGE = (0.005, 0.05)
MIN_CHANGE = 1.0

Array = np.ndarray
# A defect takes a float crop, its photograph, the other photographs and a generator, and gives the
# changed crop and its mask.
Defect = Callable[[Array, Array, list[Array], np.random.Generator], tuple[Array, Array]]

Region = tuple[int, int, int, int]
# Top, bottom, left and right of each part of a region, in pixels.
TRAIN_REGION: tuple[Region, ...] = ((0, 160, 96, 512), (256, 416, 96, 512))
CALIBRATION_REGION: tuple[Region, ...] = ((0, 160, 0, 96), (256, 416, 0, 96))
TEST_REGION: tuple[Region, ...] = ((160, 256, 0, 512), (416, 512, 0, 512))


def load_textures(category: str, *, calibrate: bool) -> Dataset:
    """Makes the crops of one photograph, 64 x 64 grey.

    Args:
        category: "brick", "grass" or "gravel".
        calibrate: whether the calibration region gives calibration images.

    Returns:
        The data set: 1,024 training crops; 96 calibration crops or none; 120 good test crops and
        30 of each defect (patch, strip, scratch, stain), whose masks cover 0.5 to 5 % of a crop.
    """
    photographs = {name: read_photograph(name) for name in CATEGORIES}
    own = photographs[category]
    others = [photographs[name] for name in CATEGORIES if name != category]
    rng = np.random.default_rng([2021, CATEGORIES.index(category)])
    train = _normal_set("train", _crops(own, TRAIN_REGION, TRAIN_CROPS, rng))
    calibration = _normal_set(
        "calibration", _crops(own, CALIBRATION_REGION, CALIBRATION_CROPS, rng)
    )
    test = _test_set(own, others, rng)
    return Dataset(category, train, test, calibration if calibrate else calibration.take(slice(0)))


def read_photograph(name: str) -> np.ndarray:
    """Reads one of the photographs, uint8 ``(512, 512)``, from the scikit-image package."""
    file = resources.files("skimage.data").joinpath(f"{name}.png")
    with Image.open(io.BytesIO(file.read_bytes())) as image:
        return np.asarray(image.convert("L"))


def _test_set(own: np.ndarray, others: list[np.ndarray], rng: np.random.Generator) -> ImageSet:
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
        png_sizes(all_images),
        good.kinds + kinds,
        np.concatenate([no_defect, np.stack(masks)]),
    )


def _visible_defect(
    make: Defect, crop: Array, own: Array, others: list[Array], rng: np.random.Generator
) -> tuple[Array, Array]:
    """Draws a defect until its area is allowed and it changes the pixels enough to be seen."""
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
    return ImageSet(crops[..., None], names, png_sizes(crops), [GOOD] * len(crops))


def _crops(
    photograph: Array, region: tuple[Region, ...], count: int, rng: np.random.Generator
) -> Array:
    """Crops at random places of a region, each part as often as any other."""
    crops = []
    for part in rng.integers(len(region), size=count):
        top, bottom, left, right = region[part]
        y, x = rng.integers(top, bottom - CROP + 1), rng.integers(left, right - CROP + 1)
        crops.append(photograph[y : y + CROP, x : x + CROP])
    return np.stack(crops)


def png_sizes(images: np.ndarray) -> np.ndarray:
    """Bytes of each image of ``(n, H, W)`` or ``(n, H, W, C)`` encoded as PNG, int ``(n,)``."""
    sizes = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(np.squeeze(image)).save(buffer, format="PNG")
        sizes.append(buffer.tell())
    return np.array(sizes, dtype=np.int64)


def _blob(rng: np.random.Generator) -> np.ndarray:
    """A random closed region of 2 to 5 % of the crop."""
    return blob_field(CROP, (0.02, 0.047), rng) < 1.0


def _patch(
    crop: Array, own: Array, others: list[Array], rng: np.random.Generator
) -> tuple[Array, Array]:
    """A patch of another photograph, at half its scale, with the place's mean and contrast."""
    del own
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


def _strip(
    crop: Array, own: Array, others: list[Array], rng: np.random.Generator
) -> tuple[Array, Array]:
    """A strip that slid along its length; the gap that it left lies in shadow."""
    del others
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


def _scratch(
    crop: Array, own: Array, others: list[Array], rng: np.random.Generator
) -> tuple[Array, Array]:
    """A thin curved groove, dark with a bright burr beside it, through which the grain shows."""
    del others
    start, end = rng.uniform(3, CROP - 3, size=(2, 2))
    path = curve(start, end, rng.normal(0.0, 4.0, size=2), CROP)
    groove = rasterize(path, CROP)
    burr = rasterize(path + rng.choice([-1.0, 1.0], size=2), CROP)
    depth = rng.uniform(2.5, 4.0) * own.std()
    scratched = crop - depth * groove + depth * (burr & ~groove)
    return scratched, groove | burr


def _stain(
    crop: Array, own: Array, others: list[Array], rng: np.random.Generator
) -> tuple[Array, Array]:
    """A stain that darkens or bleaches the texture, which shows through."""
    del others
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
