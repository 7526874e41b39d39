"""Damaged image files end in pixels or in one line."""

import functools
import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from daad_jax.config import DataConfig
from daad_jax.data.decode import decode_image
from daad_jax.data.masks import decode_mask
from daad_jax.errors import BadFileError
from tests.fuzz import cases

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encode(mode, form, **options):
    rng = np.random.default_rng(0)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 65536, (9, 11), dtype=np.uint16))
    elif mode == "F":
        image = Image.fromarray(rng.random((9, 11), dtype=np.float32))
    else:
        image = Image.fromarray(rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def orientation():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


FILES = [
    *(encode(mode, "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    encode("P", "PNG", transparency=3),
    encode("RGB", "PNG", exif=orientation()),
    *(encode(mode, "JPEG") for mode in ("L", "RGB", "CMYK")),
    encode("RGB", "JPEG", progressive=True, exif=orientation()),
    *(encode(mode, "BMP") for mode in ("1", "L", "P", "RGB", "RGBA")),
    *(encode(mode, "TIFF") for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "F")),
    *(encode(mode, "TIFF") for mode in ("LAB", "YCbCr")),
    *(encode("RGB", "TIFF", compression=how) for how in ("tiff_lzw", "tiff_deflate", "jpeg")),
    encode("1", "TIFF", compression="group4"),
    encode("RGB", "WEBP"),
    encode("RGBA", "WEBP", lossless=True),
    encode("RGB", "WEBP", exif=orientation()),
]
PLACES = st.one_of(st.integers(0, 64), st.integers(0, 10_000))


def cut(content, at, new):
    return content[:at]


def overwrite(content, at, new):
    return content[:at] + new + content[at + len(new) :]


def insert(content, at, new):
    return content[:at] + new + content[at:]


def remove(content, at, new):
    return content[:at] + content[at + len(new) :]


CHANGES = st.tuples(
    st.sampled_from([cut, overwrite, overwrite, overwrite, insert, remove]),
    PLACES,
    st.one_of(
        st.binary(min_size=1, max_size=8),
        st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\x80"]),
        st.sampled_from(FILES),
    ),
)


def with_checksums(content):
    """A PNG file with the checksums that its chunks should have, so that they are looked into."""
    if not content.startswith(SIGNATURE):
        return content
    parts, at = [SIGNATURE], len(SIGNATURE)
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        checked = content[at + 4 : at + 8 + length]
        parts += [content[at : at + 4], checked, struct.pack(">I", zlib.crc32(checked))]
        at += 12 + length
    return b"".join(parts)


def damaged():
    return st.tuples(
        st.sampled_from(FILES), st.lists(CHANGES, min_size=1, max_size=3), st.booleans()
    )


def assert_pixels_or_one_line(case):
    content, changes, mended = case
    for change, at, new in changes:
        content = change(content, at % (len(content) + 1), new)
    content = with_checksums(content) if mended else content
    for channels in (1, 3):
        config = DataConfig(image_size=4, channels=channels, brightness="equal")
        pixels = pixels_or_line(functools.partial(decode_image, content, "x\ny.png", config))
        assert pixels is None or (pixels.shape, pixels.dtype) == ((4, 4, channels), np.uint8)
    mask = pixels_or_line(lambda: decode_mask(content, "x\ny.png", size=(4, 4)))
    assert mask is None or (mask.shape, mask.dtype) == ((4, 4), bool)


def pixels_or_line(decode):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Pillow's, of damaged tags
            return decode()
    except BadFileError as error:
        line = str(error)
    assert line.startswith("x\\ny.png: ")
    assert len(line.splitlines()) == 1
    assert len(line) < 300
    return None


def test_undamaged_files_have_pixels():
    for content in FILES:
        for channels in (1, 3):
            pixels = decode_image(content, "x", DataConfig(image_size=4, channels=channels))
            assert pixels.shape == (4, 4, channels)


@cases(100)
@given(damaged())
def test_damaged_files(case):
    assert_pixels_or_one_line(case)


@pytest.mark.slow
@cases(3000)
@given(damaged())
def test_many_damaged_files(case):
    assert_pixels_or_one_line(case)


@cases(50)
@given(st.binary(max_size=100))
def test_anything(content):
    assert_pixels_or_one_line((content, [], False))
