"""Decoding image files into uint8 arrays of one shape."""

import io
import stat
import threading
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from daad_jax.errors import BadFileError

NOT_REGULAR = "is not a regular file; move it elsewhere"
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

_FILTERS = {
    "area": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# Pillow knows more formats, some of which start other programs or hold many images.
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
# More than the pixels that Pillow decodes can take.
_MAX_FILE_BYTES = 1 << 30
# Warning filters belong to the process, so only one thread at a time may change them.
_WARNINGS = threading.Lock()


def decode_image(
    content: bytes, name: str, *, size: int, channels: int, resize: str, brightness: str = "kept"
) -> np.ndarray:
    """Decodes and resizes one image.

    Grey, 16-bit, RGBA, palette and CMYK images are converted: 16 bits to their upper 8, a
    transparent image is laid over black. A camera's orientation tag is obeyed.

    Args:
        content: the file's bytes.
        name: what an error message calls the file.
        size: height and width of the result in pixels.
        channels: 3 for RGB, 1 for luminance.
        resize: a key of the filters, "area" by default in the config.
        brightness: "kept", or "equal" to apply `equalize_brightness`.

    Returns:
        uint8 ``(size, size, channels)``.

    Raises:
        BadFileError: if the bytes are no image, or a truncated one.
    """
    image = _convert(_open(content, name), "RGB" if channels == 3 else "L", name)
    pixels = np.asarray(image.resize((size, size), _FILTERS[resize])).reshape(size, size, channels)
    return equalize_brightness(pixels) if brightness == "equal" else pixels


def decode_mask(content: bytes, name: str, *, size: int) -> np.ndarray:
    """Decodes a mask, bool ``(size, size)``: true where at least half of a pixel is defective.

    Raises:
        BadFileError: as `decode_image`.
    """
    opened = _open(content, name)
    if opened.mode.startswith(("I", "F")):
        defective = np.asarray(opened) != 0
    else:
        defective = np.asarray(_convert(opened, "L", name)) != 0
    image = Image.fromarray(defective.astype(np.uint8) * 255)
    return np.asarray(image.resize((size, size), Image.Resampling.BOX)) >= 128


def equalize_brightness(pixels: np.ndarray) -> np.ndarray:
    """Divides an image by its mean, which becomes mid-grey; what is twice the mean turns white.

    Args:
        pixels: uint8 ``(H, W, C)``.

    Returns:
        uint8, the same shape; a black image stays black.
    """
    mean = float(np.mean(pixels, dtype=np.float64))
    return np.clip(np.rint(pixels * (127.5 / max(mean, 1e-6))), 0, 255).astype(np.uint8)


def resize_array(
    image: np.ndarray, *, size: int, channels: int, resize: str, brightness: str = "kept"
) -> np.ndarray:
    """Resizes and converts one decoded uint8 image as `decode_image` does.

    Args:
        image: uint8 ``(H, W)``, ``(H, W, 1)`` or ``(H, W, 3)``.
        size: height and width of the result.
        channels: 3 or 1.
        resize: as in `decode_image`.
        brightness: as in `decode_image`.

    Returns:
        uint8 ``(size, size, channels)``.
    """
    image = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
    converted = to_mode(Image.fromarray(image), "RGB" if channels == 3 else "L")
    if converted.size != (size, size):
        converted = converted.resize((size, size), _FILTERS[resize])
    pixels = np.asarray(converted).reshape(size, size, channels)
    return equalize_brightness(pixels) if brightness == "equal" else pixels


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """Converts a Pillow image of any mode to "RGB" or "L".

    16 bits become their upper 8. What 32-bit integers and floats mean is not written in a file:
    values up to 1 (floats), 255 or 65535 are taken for the full range of floats, 8 or 16 bits.
    """
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        pixels = np.clip(np.nan_to_num(np.asarray(image, np.float64)), 0, 65535)
        top = pixels.max(initial=0.0)
        if image.mode == "F" and top <= 1:
            pixels = pixels * 255
        elif top > 255:
            pixels = pixels // 256
        image = Image.fromarray(np.rint(pixels).astype(np.uint8))
    elif image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, rgba)
    by_way_of_rgb = image.mode in ("CMYK", "LAB")
    return image.convert("RGB").convert(mode) if by_way_of_rgb else image.convert(mode)


def read_bytes(path: Path) -> bytes:
    """Reads a file; one that is no regular file, which could block for ever, is not opened.

    Raises:
        BadFileError: if it cannot be read; the message names it.
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
    """What a message says of a file or folder that the operating system does not give."""
    return f"cannot be read ({error.strerror or error}); restore or remove it"


def _open(content: bytes, name: str) -> Image.Image:
    try:
        with _WARNINGS, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=_FORMATS)
        image.load()
        return ImageOps.exif_transpose(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadFileError(name, "has too many pixels to be decoded safely; remove it") from error
    except MemoryError:
        raise  # of the machine, not of the file
    except Exception as error:  # Pillow's plugins raise many kinds on damaged files.
        reason = "is not a whole image file" if content else "is empty"
        raise BadFileError(name, f"{reason}; replace or remove it") from error


def _convert(image: Image.Image, mode: str, name: str) -> Image.Image:
    try:
        return to_mode(image, mode)
    except (ValueError, OSError) as error:
        raise BadFileError(
            name, f"has colours that cannot be converted ({image.mode}); convert or remove it"
        ) from error
