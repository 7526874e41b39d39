"""Decodes image files into uint8 arrays of one size."""

import functools
import hashlib
import stat
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from daad_jax.config import DataConfig
from daad_jax.data import frame
from daad_jax.data.masks import decode_mask
from daad_jax.data.pictures import (
    ValueRangeError,
    open_picture,
    scale,
    to_mode,
    wide_colour,
)
from daad_jax.errors import BadFileError, ConfigError
from daad_jax.runtime.files import user_path

NOT_REGULAR = "is not a regular file; move it elsewhere"
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

# Larger than any file within Pillow's limit on the number of pixels.
_MAX_FILE_BYTES = 1 << 30


def decode_image(content: bytes, name: str, config: DataConfig) -> np.ndarray:
    """Decodes, converts and resizes one image as the config says.

    Takes and raises what `decode_picture` does, and raises ConfigError if `data.ignore` cannot be
    used. Returns uint8 of the shape `daad_jax.data.frame.input_shape`.
    """
    return _place(decode_picture(content, name, config), config)


def decode_picture(content: bytes, name: str, config: DataConfig) -> Image.Image:
    """Decodes and converts one image at its own size.

    Images of every mode are converted as `daad_jax.data.pictures` says, and turned upright.

    `content` is the bytes of a PNG, JPEG, BMP, TIFF or WebP file. Returns an image of the mode
    "RGB" or "L". Raises BadFileError, which names the file, if they are not a complete image, or
    its values do not fit `data.value_range`.
    """
    picture = open_picture(content, name)
    image, value_range = picture.image, config.value_range
    try:
        if picture.is_wide_colour and value_range != "auto":
            scaled = scale(wide_colour(content, name, picture), 0, 65535, value_range)
            if scaled.shape[-1] == 4:
                scaled[..., 3] = np.asarray(image)[..., 3]  # opacity has no range
            image = Image.fromarray(scaled)
        image = to_mode(image, _mode(config), value_range)
    except (ValueError, OSError) as error:
        reason = (
            str(error)
            if isinstance(error, ValueRangeError)
            else (f"has colours that cannot be converted ({image.mode}); convert or remove it")
        )
        raise BadFileError(name, reason) from error
    return picture.upright(image)


def equalize_brightness(pixels: Any, counts: Any = True) -> Any:
    """Divides an image by its mean and multiplies it by 127.5.

    `pixels` and the result are uint8 ``(H, W, C)``, or ``(n, C)`` of chosen pixels, of NumPy or
    JAX. The mean is that of the pixels with `counts`, bool ``(H, W, 1)``. Values above 255 are
    clipped, and a black image stays black.
    """
    xp = pixels.__array_namespace__()
    mean = xp.maximum(xp.mean(pixels, dtype=np.float64, where=counts), 1e-6)
    return xp.clip(xp.rint(pixels * (127.5 / mean)), 0, 255).astype(np.uint8)


def resize_array(image: np.ndarray, config: DataConfig) -> np.ndarray:
    """Converts and resizes uint8 ``(H, W)`` or ``(H, W, C)``, C 1 or 3, as `decode_image` does."""
    image = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
    return _place(to_mode(Image.fromarray(image), _mode(config)), config)


def ignored_region(config: DataConfig) -> str:
    """Returns what `data.ignore` stands for: the text of its boxes, or a hash of its mask file.

    Raises ConfigError if the file cannot be used.
    """
    if not config.ignore or config.ignored_boxes() is not None:
        return config.ignore
    mask = ignore_mask(config.ignore)
    return hashlib.blake2b(repr(mask.shape).encode() + mask.tobytes(), digest_size=16).hexdigest()


def read_bytes(path: Path) -> bytes:
    """Reads a file. Pipes and devices are not opened, because they could block for ever.

    Raises BadFileError if it cannot be read, is not a regular file, or is larger than 1 GiB.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadFileError(str(path), NOT_REGULAR)
        if status.st_size > _MAX_FILE_BYTES:
            raise BadFileError(str(path), "is too large to be an image; move it elsewhere")
        return path.read_bytes()
    except OSError as error:
        raise BadFileError(str(path), unreadable(error)) from error


def unreadable(error: OSError) -> str:
    """Returns the part of an error message that says why a file or folder cannot be read."""
    return f"cannot be read ({error.strerror or error}); restore or remove it"


def _mode(config: DataConfig) -> str:
    return "RGB" if config.channels == 3 else "L"


def _place(image: Image.Image, config: DataConfig) -> np.ndarray:
    """Resizes an image of mode "L" or "RGB" into its frame.

    Pixels that do not count get the mean colour of the others: nothing depends on what was there.
    """
    picture = image.height, image.width
    box = frame.picture_box(picture, config)
    if picture != (box.height, box.width):
        image = image.resize((box.width, box.height), frame.FILTERS[config.resize])
    pixels = np.asarray(image).reshape(box.height, box.width, config.channels)
    equal = config.brightness == "equal"
    if not config.has_validity:
        return equalize_brightness(pixels) if equal else pixels
    counts = _counts(picture, box, config.ignore, config.resize)
    counted = equalize_brightness(pixels[counts]) if equal else pixels[counts]
    placed = np.zeros(frame.input_shape(config), np.uint8)
    placed[..., :-1] = np.rint(counted.mean(axis=0))
    inner = placed[box.region]
    inner[counts, :-1], inner[counts, -1] = counted, 255
    return placed


@functools.lru_cache(maxsize=16)
def _counts(picture: tuple[int, int], box: frame.Box, ignore: str, resize: str) -> np.ndarray:
    """Which pixels of a resized picture count, bool of the height and width of the box."""
    boxes = DataConfig(ignore=ignore).ignored_boxes() if ignore else []
    if boxes is None:
        mask = Image.fromarray(ignore_mask(ignore))
        ignored = np.asarray(mask.resize(picture[::-1], Image.Resampling.NEAREST))
    else:
        ignored = frame.in_boxes(picture, boxes)
    counts = frame.untouched(ignored, box, resize)
    if not counts.any():
        raise ConfigError(f"data.ignore: {ignore} leaves no pixel to score; make it smaller")
    return counts


@functools.lru_cache(maxsize=2)
def ignore_mask(path: str) -> np.ndarray:
    """Reads the mask file that `data.ignore` names: bool ``(H, W)``, true on what is left out.

    Raises ConfigError if the file cannot be used.
    """
    try:
        content = read_bytes(user_path(path))
        return decode_mask(content, path)
    except BadFileError as error:
        raise ConfigError(f"data.ignore: {error}") from error
