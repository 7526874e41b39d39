"""Stray metadata changes no pixel: EXIF, PNG chunks, JPEG segments and TIFF tags of any content.

None of it defines size, colours, orientation or storage.
"""

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from daad_jax.config import DataConfig
from daad_jax.data.decode import decode_image
from daad_jax.data.masks import decode_mask

TURNS = {1: lambda p: p, 3: lambda p: p[::-1, ::-1], 6: lambda p: np.rot90(p, -1)}
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
FORMS = [
    ("PNG", {}),
    ("JPEG", {"quality": 95}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("WEBP", {"lossless": True}),
]
# Tags of pixels, of orientation, and of directories with pixels of their own.
PIXEL_TAGS = {*range(254, 300), *range(317, 348), *range(512, 533), 34377}


def noise(rng, most=40):
    return rng.randbytes(rng.randrange(most))


def directory(rng, order, entries):
    """A TIFF directory with stray entries between those given, and a stray next one."""
    tags = [rng.randrange(65536) for _ in range(rng.randint(1, 5))]
    for tag in {*tags, 270, 271, 306, 700, 33723, 34665, 34675, 34853} - PIXEL_TAGS:
        if tag in tags or rng.random() < 0.2:
            count = rng.choice([0, 1, 2, 5, 1000, 2**31])
            entry = struct.pack(f"{order}HHI", tag, rng.randrange(15), count) + rng.randbytes(4)
            entries.insert(rng.randint(0, len(entries)), entry)
    end = struct.pack(f"{order}I", rng.choice([0, 5, 2**31]))
    return struct.pack(f"{order}H", len(entries)) + b"".join(entries) + end


def exif(rng, turn):
    order = rng.choice("<>")
    entries = [struct.pack(f"{order}HHIHH", 274, 3, 1, turn, 0)] if turn > 1 else []
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8)
    return head + directory(rng, order, entries)


def chunk(rng, kind, content):
    checksum = zlib.crc32(kind + content) if rng.random() < 0.8 or kind == b"eXIf" else 7
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def with_png_chunks(rng, content, turn):
    contents = [
        b"transparency\0abc",
        b"exif\0x",
        b"Raw profile type exif\0\n\nzz",
        b"XML:com.adobe.xmp\0\0\0\0\0x",
        b"history\0\0" + zlib.compress(bytes(3_000_000)),
        noise(rng),
    ]
    kinds = [b"tEXt", b"zTXt", b"iTXt", b"tIME", b"pHYs", b"iCCP", b"sBIT", b"gAMA", b"prVt"]
    new = [chunk(rng, rng.choice(kinds), rng.choice(contents)) for _ in range(rng.randint(1, 4))]
    new.insert(0, chunk(rng, b"eXIf", exif(rng, turn)))
    at = rng.choice([33, len(content) - 12])  # before or after the pixels
    return content[:at] + b"".join(new) + content[at:]


def with_jpeg_segments(rng, content, turn):
    contents = [b"", b"JFIF\0", b"Adobe", b"MPF\0x", b"Photoshop 3.0\0008BIM", noise(rng)]
    new = [(0xE1, b"Exif\0\0" + exif(rng, turn))]
    for _ in range(rng.randint(1, 4)):
        new.append((rng.choice([0xE0, 0xE2, 0xE3, 0xED, 0xEE, 0xFE]), rng.choice(contents)))
    parts = [struct.pack(">BBH", 0xFF, kind, len(body) + 2) + body for kind, body in new]
    return content[:20] + b"".join(parts) + content[20:]


def with_tiff_tags(rng, content, turn):
    (at,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, at)
    entries = [content[at + 2 + 12 * i : at + 14 + 12 * i] for i in range(count)]
    entries.append(struct.pack("<HHIHH", 274, 3, 1, turn, 0))
    new = directory(rng, "<", entries)
    return content[:4] + struct.pack("<I", len(content)) + content[8:] + new


def encode(rng, image, form, options, turn):
    buffer = io.BytesIO()
    extra = {"exif": exif(rng, turn), "xmp": noise(rng)} if form == "WEBP" and turn else {}
    image.save(buffer, form, **options, **extra)
    change = {"PNG": with_png_chunks, "JPEG": with_jpeg_segments, "TIFF": with_tiff_tags}.get(form)
    return change(rng, buffer.getvalue(), turn) if change and turn else buffer.getvalue()


@pytest.mark.parametrize(
    "seeds", [range(60), pytest.param(range(60, 2060), marks=pytest.mark.slow)], ids=len
)
def test_stray_metadata_changes_no_pixel(seeds, recwarn):
    config = DataConfig(image_size=12)
    for seed in seeds:
        rng = random.Random(seed)
        form, options = FORMS[seed % len(FORMS)]
        turn = rng.choice(list(TURNS))
        image = Image.fromarray(PIXELS).convert(rng.choice(["RGB", "L"]))
        plain = encode(rng, image, form, options, 0)
        content = encode(rng, image, form, options, turn)
        expected = TURNS[turn](decode_image(plain, "x", config))
        np.testing.assert_array_equal(decode_image(content, "x", config), expected, str(seed))
        mask = decode_mask(plain, "x", size=(12, 12))
        np.testing.assert_array_equal(decode_mask(content, "x", size=(12, 12)), TURNS[turn](mask))
    assert not recwarn.list
