"""Decodes image files into uint8 arrays of one size."""

import io
import stat
import threading
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from daad_jax.config import DataConfig
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
# Pillow supports more formats; some of them start other programs or hold many images.
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
# Larger than any file within Pillow's limit on the number of pixels.
_MAX_FILE_BYTES = 1 << 30
# Warning filters are global to the process, so only one thread at a time may change them.
_WARNINGS = threading.Lock()


def decode_image(content: bytes, name: str, config: DataConfig) -> np.ndarray:
    """Decodes, converts and resizes one image as the config says.

    Grey, 16-bit, RGBA, palette and CMYK images are converted. Of 16 bits the upper 8 are kept, and
    a transparent image is laid over black. The EXIF orientation is applied.

    `content` is the bytes of a PNG, JPEG, BMP, TIFF or WebP file. Returns uint8
    ``(size, size, channels)``. Raises BadFileError, which names the file, if they are not a
    complete image.
    """
    return _resize(_convert(_open(content, name), _mode(config), name), config)


def decode_mask(content: bytes, name: str, *, size: int) -> np.ndarray:
    """Decodes and resizes one mask. A pixel of the file is defective if it is not 0.

    `content` is the bytes of a PNG, JPEG, BMP, TIFF or WebP file. Returns bool ``(size, size)``,
    true where at least half of a pixel is defective. Raises BadFileError, which names the file, if
    the bytes are not a complete image.
    """
    opened = _open(content, name)
    if opened.mode.startswith(("I", "F")):
        defective = np.asarray(opened) != 0
    else:
        defective = np.asarray(_convert(opened, "L", name)) != 0
    image = Image.fromarray(defective.astype(np.uint8) * 255)
    return np.asarray(image.resize((size, size), Image.Resampling.BOX)) >= 128


def equalize_brightness(pixels: np.ndarray) -> np.ndarray:
    """Divides an image by its mean and multiplies it by 127.5.

    `pixels` and the result are uint8 ``(H, W, C)``. Values above 255 are clipped, and a black image
    stays black.
    """
    mean = float(np.mean(pixels, dtype=np.float64))
    return np.clip(np.rint(pixels * (127.5 / max(mean, 1e-6))), 0, 255).astype(np.uint8)


def resize_array(image: np.ndarray, config: DataConfig) -> np.ndarray:
    """Converts and resizes uint8 ``(H, W)`` or ``(H, W, C)``, C 1 or 3, as `decode_image` does."""
    image = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
    return _resize(to_mode(Image.fromarray(image), _mode(config)), config)


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """Converts a Pillow image of any mode to "RGB" or "L".

    16-bit values become their upper 8 bits, and a transparent image is laid over black. Files do
    not state the range of 32-bit integers and floats. It is taken to be the smallest of 0 to 1
    (floats only), 0 to 255 and 0 to 65535 that holds the largest value.
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
    if image.mode in ("CMYK", "LAB"):  # Pillow converts these to RGB only.
        image = image.convert("RGB")
    return image.convert(mode)


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


def _resize(image: Image.Image, config: DataConfig) -> np.ndarray:
    size = config.image_size
    if image.size != (size, size):
        image = image.resize((size, size), _FILTERS[config.resize])
    pixels = np.asarray(image).reshape(size, size, config.channels)
    return equalize_brightness(pixels) if config.brightness == "equal" else pixels


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
        raise  # the machine is out of memory; the file may be fine
    except Exception as error:  # Pillow's plugins raise many types on damaged files.
        reason = "is not a whole image file" if content else "is empty"
        raise BadFileError(name, f"{reason}; replace or remove it") from error


def _convert(image: Image.Image, mode: str, name: str) -> Image.Image:
    try:
        return to_mode(image, mode)
    except (ValueError, OSError) as error:
        raise BadFileError(
            name, f"has colours that cannot be converted ({image.mode}); convert or remove it"
        ) from error
