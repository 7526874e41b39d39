"""The embedded textures: crops of three photographs, with defects made from real pixels.

The photographs (brick, grass, gravel; 512 x 512 grey) travel in the scikit-image wheel, so nothing
is downloaded. Each is cut into horizontal regions that do not touch one another's pixels: rows 0 to
255 to train, 256 to 319 to calibrate, 320 to 511 to test. Everything is drawn from fixed seeds:
the same version makes the same pixels on every machine.
"""

import io
from importlib import resources

import numpy as np
from PIL import Image
from scipy import ndimage

from daad_jax.data.dataset import GOOD, Dataset, ImageSet

CATEGORIES = ("brick", "grass", "gravel")
CROP = 64
TRAIN_CROPS = 1024
CALIBRATION_CROPS = 96
TEST_GOOD = 120
TEST_PER_KIND = 30
AREA_RANGE = (0.005, 0.05)

_TRAIN_ROWS = (0, 256)
_CALIBRATION_ROWS = (256, 320)
_TEST_ROWS = (320, 512)


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
    train = _normal_set("train", _crops(own, _TRAIN_ROWS, TRAIN_CROPS, rng))
    calibration = _normal_set(
        "calibration", _crops(own, _CALIBRATION_ROWS, CALIBRATION_CROPS, rng)
    )
    test = _test_set(own, others, rng)
    return Dataset(category, train, test, calibration if calibrate else calibration.take(slice(0)))


def read_photograph(name: str) -> np.ndarray:
    """Reads one of the photographs, uint8 ``(512, 512)``, from the scikit-image package."""
    file = resources.files("skimage.data").joinpath(f"{name}.png")
    with Image.open(io.BytesIO(file.read_bytes())) as image:
        return np.asarray(image.convert("L"))


def _test_set(own: np.ndarray, others: list[np.ndarray], rng: np.random.Generator) -> ImageSet:
    good = _normal_set("test/good", _crops(own, _TEST_ROWS, TEST_GOOD, rng))
    images, masks, names, kinds = [], [], [], []
    for kind, make in _DEFECTS.items():
        for index, crop in enumerate(_crops(own, _TEST_ROWS, TEST_PER_KIND, rng)):
            image, mask = _with_allowed_area(make, crop, own, others, rng)
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


def _with_allowed_area(make, crop, own, others, rng):  # type: ignore[no-untyped-def]
    while True:
        image, mask = make(crop.astype(np.float64), own, others, rng)
        if AREA_RANGE[0] <= mask.mean() <= AREA_RANGE[1]:
            return np.clip(np.rint(image), 0, 255).astype(np.uint8), mask


def _normal_set(prefix: str, crops: np.ndarray) -> ImageSet:
    names = [f"{prefix}/{index:04d}" for index in range(len(crops))]
    return ImageSet(crops[..., None], names, png_sizes(crops), [GOOD] * len(crops))


def _crops(
    photograph: np.ndarray, rows: tuple[int, int], count: int, rng: np.random.Generator
) -> np.ndarray:
    tops = rng.integers(rows[0], rows[1] - CROP + 1, size=count)
    lefts = rng.integers(0, photograph.shape[1] - CROP + 1, size=count)
    return np.stack(
        [
            photograph[top : top + CROP, left : left + CROP]
            for top, left in zip(tops, lefts, strict=True)
        ]
    )


def png_sizes(images: np.ndarray) -> np.ndarray:
    """Bytes of each image of ``(n, H, W)`` or ``(n, H, W, C)`` encoded as PNG, int ``(n,)``."""
    sizes = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(np.squeeze(image)).save(buffer, format="PNG")
        sizes.append(buffer.tell())
    return np.array(sizes, dtype=np.int64)


def _blob(rng: np.random.Generator) -> np.ndarray:
    """A random smooth closed region: noise, low-passed, cut within an ellipse."""
    y, x = np.mgrid[:CROP, :CROP]
    area = rng.uniform(0.015, 0.047) * CROP * CROP
    ratio = rng.uniform(0.6, 1.6)
    radius_y, radius_x = np.sqrt(area / np.pi * ratio), np.sqrt(area / np.pi / ratio)
    center_y, center_x = rng.uniform(radius_y + 1, CROP - radius_y - 1), rng.uniform(
        radius_x + 1, CROP - radius_x - 1
    )
    distance = ((y - center_y) / radius_y) ** 2 + ((x - center_x) / radius_x) ** 2
    wobble = ndimage.gaussian_filter(rng.standard_normal((CROP, CROP)), 3)
    return distance + 0.35 * wobble / wobble.std() < 1.0


def _patch(crop, own, others, rng):  # type: ignore[no-untyped-def]
    """A patch of another photograph, matched to the local mean and contrast."""
    del own
    mask = _blob(rng)
    other = others[rng.integers(len(others))]
    foreign = _crops(other, (0, other.shape[0]), 1, rng)[0].astype(np.float64)
    if mask.sum() < 2:
        return crop, mask
    inside, source = crop[mask], foreign[mask]
    matched = (foreign - source.mean()) / (source.std() + 1e-6) * inside.std() + inside.mean()
    return np.where(mask, matched, crop), mask


def _strip(crop, own, others, rng):  # type: ignore[no-untyped-def]
    """A strip that slid along its length; the gap that it left lies in shadow."""
    del others
    thickness, length, shift = rng.integers(4, 8), rng.integers(16, 25), rng.integers(5, 9)
    across = rng.random() < 0.5
    moved = (crop.T if across else crop).copy()
    top, left = rng.integers(0, CROP - thickness), rng.integers(0, CROP - length - shift)
    rows = slice(top, top + thickness)
    moved[rows, left + shift : left + shift + length] = moved[rows, left : left + length].copy()
    shadow = np.percentile(own, 1)
    moved[rows, left : left + shift] = shadow + 0.25 * (moved[rows, left : left + shift] - shadow)
    mask = np.zeros((CROP, CROP), dtype=bool)
    mask[rows, left : left + shift + length] = True
    return (moved.T, mask.T) if across else (moved, mask)


def _scratch(crop, own, others, rng):  # type: ignore[no-untyped-def]
    """A thin curved line, brighter or darker than what it crosses, whose grain shows through."""
    del own, others
    points = np.linspace(0.0, 1.0, 200)
    start, end = rng.uniform(4, CROP - 4, size=(2, 2))
    bend = rng.normal(0.0, 4.0, size=2)
    bow = np.sin(np.pi * points)[:, None] * bend
    path = start + points[:, None] * (end - start) + bow
    distance = ndimage.distance_transform_edt(_rasterize(path) == 0)
    strength = np.clip(rng.uniform(1.0, 1.6) - distance, 0.0, 1.0)
    amount = rng.choice([-1.0, 1.0]) * rng.uniform(2.5, 4.0) * crop.std()
    return crop + strength * amount, strength > 0.0


def _stain(crop, own, others, rng):  # type: ignore[no-untyped-def]
    """A soft-edged stain that darkens or bleaches the texture and flattens its contrast."""
    del own, others
    mask = _blob(rng)
    soft = ndimage.gaussian_filter(mask.astype(np.float64), 0.7) * mask
    mean = crop[mask].mean() if mask.any() else 0.0
    amount = rng.choice([-1.0, 1.0]) * rng.uniform(1.5, 2.5) * crop.std()
    stained = mean + rng.uniform(0.4, 0.8) * (crop - mean) + amount
    return crop + soft * (stained - crop), mask


def _rasterize(path: np.ndarray) -> np.ndarray:
    canvas = np.zeros((CROP, CROP), dtype=bool)
    inside = np.clip(np.rint(path).astype(int), 0, CROP - 1)
    canvas[inside[:, 0], inside[:, 1]] = True
    return canvas


_DEFECTS = {"patch": _patch, "strip": _strip, "scratch": _scratch, "stain": _stain}
