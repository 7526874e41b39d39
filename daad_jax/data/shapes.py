"""Random shapes of artificial defects, at any image size."""

import numpy as np
from scipy import ndimage

_WOBBLE = 3 / 64
_POINTS = 200 / 64


Size = tuple[int, int]  # height and width in pixels


def blob_field(size: Size, area_range: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Returns a random field whose values below 1 form a blob: an ellipse with a wavy edge.

    `area_range` is the minimum and maximum area of the ellipse as shares of the image, which bounds
    the ellipse to its shorter side. Returns float of the height and width `size`, about 0 in the
    centre of the ellipse and about 1 on its edge.
    """
    y, x = np.mgrid[: size[0], : size[1]]
    area = rng.uniform(*area_range) * size[0] * size[1]
    ratio = rng.uniform(0.6, 1.6)
    radii = np.sqrt(area / np.pi * np.array([ratio, 1 / ratio]))
    radii = np.minimum(radii, np.array(size) / 2 - 1.5)
    center = rng.uniform(radii + 1, size - radii - 1)
    distance = ((y - center[0]) / radii[0]) ** 2 + ((x - center[1]) / radii[1]) ** 2
    wobble = ndimage.gaussian_filter(rng.standard_normal(size), _WOBBLE * min(size))
    return distance + 0.35 * wobble / wobble.std()


def curve(start: np.ndarray, end: np.ndarray, bow: np.ndarray, size: int) -> np.ndarray:
    """Returns points on a curved line no longer than `size` pixels.

    `start` and `end` are row and column of its ends, float ``(2,)``. `bow` is the offset of its
    middle from the straight line in pixels, float ``(2,)``. Returns rows and columns, float
    ``(p, 2)``, less than one pixel apart. They may lie outside the image.
    """
    points = np.linspace(0.0, 1.0, int(_POINTS * size))
    return start + points[:, None] * (end - start) + np.sin(np.pi * points)[:, None] * bow


def rasterize(path: np.ndarray, size: Size) -> np.ndarray:
    """Returns the pixels under a line as a mask, bool of the height and width `size`.

    `path` holds rows and columns, float ``(p, 2)``. Points outside the image move to its border.
    """
    canvas = np.zeros(size, dtype=bool)
    inside = np.clip(np.rint(path).astype(int), 0, np.array(size) - 1)
    canvas[inside[:, 0], inside[:, 1]] = True
    return canvas
