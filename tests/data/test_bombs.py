"""Small files that claim to be huge: one line, at once, in little memory."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from daad_jax.config import DataConfig
from daad_jax.data import decode as decode_lib
from daad_jax.errors import BadFileError

REPOSITORY = Path(__file__).parents[2]
SIDE = 60_000
CHILD = """
import resource, sys, time
from pathlib import Path
from daad_jax.config import DataConfig
from daad_jax.data import decode as decode_lib
from daad_jax.errors import BadFileError

def decode(path):
    try:
        decode_lib.decode_image(path.read_bytes(), path.name, DataConfig(image_size=16))
    except BadFileError as error:
        return str(error)
    return path.name

first, *others = map(Path, sys.argv[1:])
decode(first)
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
for path in others:
    print(decode(path))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before >> 10)
print(time.perf_counter() - start)
"""


def encode(form, **options):
    buffer = io.BytesIO()
    pixels = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind, content):
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(width, height, depth, colours, content, *others):
    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *others, chunk(b"IDAT", content), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def huge_png():
    return png(SIDE, SIDE, 8, 2, zlib.compress(bytes(1000)))


def huge_jpeg():
    content = encode("JPEG")
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + struct.pack(">HH", SIDE, SIDE) + content[at + 4 :]


def huge_bmp():
    content = encode("BMP")
    return content[:18] + struct.pack("<ii", SIDE, SIDE) + content[26:]


def huge_tiff():
    content = bytearray(encode("TIFF"))
    (at,) = struct.unpack_from("<I", content, 4)
    for entry in range(at + 2, at + 2 + 12 * 2, 12):
        tag, kind = struct.unpack_from("<HH", content, entry)
        assert (tag, kind) in ((256, 4), (257, 4))
        struct.pack_into("<I", content, entry + 8, SIDE)
    return bytes(content)


def huge_webp():
    content = bytearray(encode("WEBP", lossless=True))
    at = content.index(b"VP8L") + 9
    (header,) = struct.unpack_from("<I", content, at)
    struct.pack_into("<I", content, at, header | 0x0FFF_FFFF)  # 16384 x 16384
    return bytes(content)


def packed_zeros():
    """256 MB in less than 2."""
    packer = zlib.compressobj(1)
    zeros = bytes(1 << 24)
    return b"".join(packer.compress(zeros) for _ in range(16)) + packer.flush()


def inflating_pixels():
    return png(64, 64, 8, 2, packed_zeros())


def inflating_comment():
    pixels = zlib.compress(bytes(8 * 25))
    return png(8, 8, 8, 2, pixels, chunk(b"zTXt", b"a\0\0" + packed_zeros()))


def inflating_profile():
    pixels = zlib.compress(bytes(8 * 25))
    return png(8, 8, 8, 2, pixels, chunk(b"iCCP", b"a\0\0" + packed_zeros()))


HUGE = [huge_png, huge_jpeg, huge_bmp, huge_tiff, huge_webp]
INFLATING = [inflating_pixels, inflating_comment, inflating_profile]


@pytest.mark.parametrize("make", HUGE)
def test_headers_that_claim_too_many_pixels_are_refused(make):
    with pytest.raises(BadFileError, match="^x: has too many pixels to be decoded safely; remove"):
        decode_lib.decode_image(make(), "x", DataConfig(image_size=16))


def test_bombs_take_little_time_and_memory(tmp_path):
    (tmp_path / "small").write_bytes(encode("PNG"))
    for make in [*HUGE, *INFLATING]:
        (tmp_path / make.__name__).write_bytes(make())
    bombs = [tmp_path / make.__name__ for make in [*HUGE, *INFLATING]]
    result = subprocess.run(
        [sys.executable, "-c", CHILD, tmp_path / "small", *bombs],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    *answers, megabytes, seconds = result.stdout.splitlines()
    assert [answer.split(":")[0] for answer in answers] == [bomb.name for bomb in bombs]
    assert int(megabytes) < 100
    assert float(seconds) < 20


def test_a_picture_just_within_the_bounds_is_decoded():
    content = zlib.compress(bytes((8000 // 8 + 1) * 8000), 9)
    assert len(content) < 10_000
    result = decode_lib.decode_image(
        png(8000, 8000, 1, 0, content), "x", DataConfig(image_size=16, channels=1)
    )
    np.testing.assert_array_equal(result, np.zeros((16, 16, 1)))
