"""Opens image files with Pillow, and converts pictures of every mode to 8 bits."""

import contextlib
import io
import re
import sys
import threading
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import OPEN_INFO

from daad_jax.config import ValueRange
from daad_jax.data import containers
from daad_jax.errors import BadFileError

# Pillow supports more formats; some of them start other programs or hold many images.
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
# Warning filters are global to the process, so only one thread at a time may change them.
_WARNINGS = threading.Lock()
_SAMPLE_FORMAT, _BITS, _PHOTOMETRIC, _COLOUR_MAP, _PLANES = 339, 258, 262, 320, 284
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# The order of bytes that has the lower byte where the upper one is expected.
_OTHER_ORDER = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}
# libtiff returns numbers in the machine's order, which Pillow knows only of unsigned 16 bits.
_BY_LIBTIFF = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "I;32B": "I;32N", "F;32BF": "F;32NF"}
_MOST_OUTSIDE = 0.01

# Pillow decodes these as well, but has no row for them.
OPEN_INFO.setdefault((b"MM", 1, (1,), 1, (32,), ()), ("I", "I;32B"))
for _key, _modes in list(OPEN_INFO.items()):
    if _key[1] == 1 and _modes[0] in ("I", "I;16", "I;16B", "F"):  # white is zero, see `wide_grey`
        OPEN_INFO.setdefault((_key[0], 0, _key[2], _key[3], _key[4], _key[5]), _modes)


class ValueRangeError(ValueError):
    """The values of a picture do not fit the range of their type. The text says what to do."""


class Picture(NamedTuple):
    """The first picture of a file, decoded but not turned upright.

    `stored` is Pillow's name of the samples in the file, such as "RGB;16B". `turn` makes the
    picture upright; None if it is.
    """

    image: Image.Image
    stored: str
    turn: Image.Transpose | None

    @property
    def is_wide_colour(self) -> bool:
        """Whether the file has 16 bits for each of several samples, of which Pillow keeps 8."""
        return ";16" in self.stored and not self.image.mode.startswith("I")

    def upright(self, image: Image.Image) -> Image.Image:
        """Turns an image of this picture's size as the picture must be turned."""
        return image if self.turn is None else image.transpose(self.turn)


def open_picture(
    content: bytes, name: str, change: Callable[[str], str] = lambda stored: stored
) -> Picture:
    """Decodes the first picture of a PNG, JPEG, BMP, TIFF or WebP file.

    Metadata cannot spoil it: only what defines the pixels is given to Pillow, and the orientation
    is used if it can be read. `change` takes and returns Pillow's name of the samples in the file.

    Raises BadFileError, which names the file, if it cannot be decoded.
    """
    try:
        image = _open(containers.lean(content))
        stored = change(_stored(image))
        image.tile = [_with_samples(tile, change) for tile in image.tile]
        image.load()
        if stored.startswith("RGBa") and not image.getchannel("A").getextrema()[1]:
            # Pillow divides the colours by their opacity.
            return open_picture(content, name, lambda stored: stored.replace("RGBa", "RGBA"))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadFileError(name, "has too many pixels to be decoded safely; remove it") from error
    except (MemoryError, BadFileError):
        raise  # the machine is out of memory, and the file may be fine; or the reason is known
    except Exception as error:  # Pillow's plugins raise many types on damaged files.
        raise BadFileError(name, containers.not_whole(content, error)) from error
    return Picture(image, stored, _TURNS.get(containers.orientation(content)))


def picture_size(content: bytes) -> tuple[int, int] | None:
    """Reads the width and height of a file's upright picture; None if it cannot be read."""
    with contextlib.suppress(Exception):
        image = _open(containers.lean(content))
        return image.size[::-1] if containers.orientation(content) >= 5 else image.size
    return None


class Header(NamedTuple):
    """What a file says of its picture: width and height when upright, mode and bits per value."""

    size: tuple[int, int]
    mode: str
    bits: int


def read_header(content: bytes) -> Header | None:
    """Reads what a file says of its picture without decoding it; None if it cannot be read.

    The mode is Pillow's, such as "L" or "RGB"; all grey of more than 8 bits is "L".
    """
    with contextlib.suppress(Exception):
        image = _open(containers.lean(content))
        size = image.size[::-1] if containers.orientation(content) >= 5 else image.size
        is_wide = image.mode.startswith(("I", "F"))
        bits = {"1": 1, "I": 32, "F": 32}.get(image.mode, 16 if is_wide else 8)
        if named := re.search(r";(\d+)", _stored(image)):
            bits = int(named[1])
        bits = getattr(image, "tag_v2", {}).get(_BITS, (bits,))[0]
        return Header(size, "L" if is_wide else image.mode, bits)
    return None


def to_mode(image: Image.Image, mode: str, value_range: ValueRange = "auto") -> Image.Image:
    """Converts a Pillow image of any mode to "RGB" or "L".

    A transparent image is laid over black, unless it is transparent everywhere. Grey values of more
    than 8 bits are scaled by `scale`. Raises ValueRangeError if they cannot be.
    """
    tags = getattr(image, "tag_v2", {})
    wide = wide_grey(image)
    if wide is not None:
        image = Image.fromarray(scale(*wide, value_range))
    elif image.mode == "L" and tags.get(_SAMPLE_FORMAT, (1,))[0] == 2:
        image = Image.fromarray(np.asarray(image) ^ 0x80)  # signed; Pillow takes -1 for 255
    elif has_alpha(image):
        image = over_black(to_rgba(image))
    elif image.mode == "P" and 0 < max(tags.get(_COLOUR_MAP, (256,))) < 256:
        image.putpalette(bytes(tags[_COLOUR_MAP]), "RGB;L")  # colours of 8 bits, not of 16
    if image.mode in ("CMYK", "LAB"):  # Pillow converts these to RGB only.
        image = image.convert("RGB")
    return image.convert(mode)


def wide_grey(image: Image.Image) -> tuple[np.ndarray, float, float] | None:
    """Returns the values of a grey image of more than 8 bits, and the range of their type.

    Integers have the range of their bits, floats 0 to 1. Where a TIFF file says that the lowest
    value is white, the values are turned over. Returns None for another image.
    """
    if not image.mode.startswith(("I", "F")):
        return None
    tags = getattr(image, "tag_v2", {})
    values, bits = np.asarray(image), tags.get(_BITS, (32 if image.mode == "I" else 16,))[0]
    signed = tags.get(_SAMPLE_FORMAT, (1 if tags else 2,))[0] == 2
    if image.mode == "F":
        low, high = 0.0, 1.0
    elif image.mode != "I" or not signed:
        low, high = 0, 2**bits - 1
        values = values.astype(np.int64) & high  # Pillow has no unsigned 32 bits
    else:
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    if tags.get(_PHOTOMETRIC) == 0:
        values = low + high - values
    if isinstance(key := image.info.get("transparency"), int):
        values = np.where(values == key, low, values)
    return values, low, high


def scale(values: np.ndarray, low: float, high: float, value_range: ValueRange) -> np.ndarray:
    """Scales values of any type to uint8 by one rule for all pictures.

    With a `value_range` other than "auto", its ends become 0 and 255, and values outside are cut
    off. Otherwise the range of the type, `low` to `high`, does: of integers the upper 8 bits are
    kept. Raises ValueRangeError if more than 1 % of the values are outside.
    """
    if value_range == "auto" and isinstance(low, int):
        return ((values.astype(np.int64) - low) >> (int(high - low).bit_length() - 8)).astype(
            np.uint8
        )
    if value_range == "auto":
        if np.mean((values < low) | (values > high)) > _MOST_OUTSIDE:
            found = f"{np.nanmin(values):g} to {np.nanmax(values):g}"
            raise ValueRangeError(
                f"has 32-bit floats from {found}, not from 0 to 1; "
                "set data.value_range to the values of black and white, for example (0, 255)"
            )
    else:
        low, high = value_range
    share = np.nan_to_num((values.astype(np.float64) - low) / (high - low), nan=0.0)
    return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)


def wide_colour(content: bytes, name: str, picture: Picture) -> np.ndarray:
    """Returns all 16 bits of a picture whose `is_wide_colour` is true, uint16 ``(H, W, C)``.

    Pillow decodes either byte of each sample, so the file is decoded a second time. Raises
    BadFileError if the samples are of a kind that it decodes the upper byte of only.
    """

    def low_bytes(stored: str) -> str:
        return f"{kind};16{_OTHER_ORDER[order]}"

    kind, _, order = picture.stored.partition(";16")
    if kind not in ("RGB", "RGBA", "RGBX") or order not in _OTHER_ORDER:
        raise BadFileError(
            name,
            f"has 16-bit samples of which only the upper 8 bits can be read ({picture.stored}); "
            "convert it to 16-bit RGB or to 8 bits",
        )
    low = open_picture(content, name, low_bytes).image
    return np.asarray(picture.image).astype(np.uint16) << 8 | np.asarray(low)


def has_alpha(image: Image.Image) -> bool:
    """Whether pixels of an image may be transparent."""
    return image.mode in ("RGBA", "LA", "La", "PA", "RGBa") or "transparency" in image.info


def to_rgba(image: Image.Image) -> Image.Image:
    """Converts an image that `has_alpha` to "RGBA"."""
    return (image.convert("LA") if image.mode == "La" else image).convert("RGBA")


def over_black(image: Image.Image) -> Image.Image:
    """Lays an "RGBA" image over black. One that is transparent everywhere keeps its colours."""
    if not image.getchannel("A").getextrema()[1]:
        return image.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)


def _open(content: bytes) -> ImageFile.ImageFile:
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of damaged tags
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(io.BytesIO(content), formats=_FORMATS)


def _stored(image: ImageFile.ImageFile) -> str:
    """Returns Pillow's name of the samples in the file. Raises ValueError if it mistakes them."""
    if not image.tile:
        return ""
    arguments = image.tile[0].args
    stored = str(arguments[0] if isinstance(arguments, tuple) else arguments)
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PLANES) == 2 and tags[_BITS][0] > 8 and not stored.startswith(("I", "F")):
        if len(stored) == 1:  # Pillow takes them for 8 bits
            raise SyntaxError(containers.UNKNOWN_PIXELS)
        stored += " in planes"
    return stored


def _with_samples(tile: ImageFile._Tile, change: Callable[[str], str]) -> ImageFile._Tile:
    """Changes what a part of a file is decoded as."""
    if not isinstance(tile.args, tuple):
        return tile._replace(args=change(str(tile.args)))
    stored = change(str(tile.args[0]))
    if tile.codec_name == "libtiff" and sys.byteorder == "little":
        stored = _BY_LIBTIFF.get(stored, stored)
    return tile._replace(args=(stored, *tile.args[1:]))
