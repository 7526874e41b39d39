"""What is done with every type of file, bit depth and mode: the table of docs/datasets.md."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from daad_jax.config import DataConfig
from daad_jax.data import containers
from daad_jax.data.decode import decode_image
from daad_jax.data.masks import decode_mask
from daad_jax.data.pictures import picture_size
from daad_jax.errors import BadFileError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (8, 8), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
OPAQUE, CLEAR = np.full((8, 8, 1), 255, np.uint8), np.zeros((8, 8, 1), np.uint8)


def save(image, form="PNG", **options):
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(
        buffer, form, **options
    )
    return buffer.getvalue()


def deep_png(pixels, kind):
    """A PNG of 16 bits per sample; `kind` 2 is RGB, 4 grey with alpha, 6 RGB with alpha."""

    def chunk(name, content):
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def tiff(pixels, order="<", packed=False, white_is_zero=False, pages=1, big=False, **tags):
    """A TIFF of grey or RGB pixels of any type, by the format's definition."""
    pixels = np.asarray(pixels, np.dtype(pixels.dtype).newbyteorder(order))
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    strip = pixels.tobytes()
    strip = zlib.compress(strip) if packed else strip
    kind, photometric = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind], 2 if samples == 3 else 1
    values = {256: pixels.shape[1], 257: pixels.shape[0], 258: pixels.dtype.itemsize * 8}
    values |= {259: 8 if packed else 1, 262: 0 if white_is_zero else photometric, 273: 16}
    values |= {277: samples, 278: pixels.shape[0], 279: len(strip), 339: kind}
    values |= {int(tag.strip("_")): value for tag, value in tags.items()}
    values = {tag: value for tag, value in values.items() if value is not None}
    entry, count, place = ("HHQQ", "Q", "Q") if big else ("HHII", "H", "I")
    at = 16 + len(strip) + len(strip) % 2
    size = struct.calcsize(f"={count}{place}") + len(values) * struct.calcsize(f"={entry}")
    directories = b""
    for page in range(pages):
        kinds = 16 if big else 4
        body = b"".join(
            struct.pack(f"{order}{entry}", tag, kinds, 1, value)
            for tag, value in sorted(values.items())
        )
        following = at + (page + 1) * size if page + 1 < pages else 0
        number = struct.pack(order + count, len(values))
        directories += number + body + struct.pack(order + place, following)
    mark = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}H", 43 if big else 42)
    head = mark + (struct.pack(f"{order}HHQ", 8, 0, at) if big else struct.pack(f"{order}I", at))
    return head.ljust(16, b"\0") + strip.ljust(at - 16, b"\0") + directories


def decode(content, channels=3, **fields):
    return decode_image(content, "x", DataConfig(image_size=8, channels=channels, **fields))


def check(content, expected, atol=0, **fields):
    expected = np.repeat(expected[..., None], 3, 2) if expected.ndim == 2 else expected
    pixels = decode(content, **fields).astype(int)
    np.testing.assert_allclose(pixels, expected.astype(int), atol=atol)


WIDE = {
    "u1": GREY,
    "u2": (GREY.astype(np.uint16) << 8) | 0x7F,
    "u4": (GREY.astype(np.uint32) << 24) | 0x7FFFFF,
    "i1": (GREY.astype(int) - 128).astype(np.int8),
    "i2": ((GREY.astype(int) << 8) - 2**15 + 99).astype(np.int16),
    "i4": ((GREY.astype(int) << 24) - 2**31 + 99).astype(np.int32),
    "f4": (GREY / 255).astype(np.float32),
}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", WIDE)
def test_grey_of_every_type_keeps_the_upper_bits_of_its_range(kind, packed, order):
    check(tiff(WIDE[kind], order, packed), GREY)
    if kind != "i1":
        check(tiff(WIDE[kind], order, packed, white_is_zero=True), 255 - GREY)


def test_the_numbers_of_the_table():
    def one(value, kind, **fields):
        return int(decode(tiff(np.full((8, 8), value, kind)), **fields)[0, 0, 0])

    assert [one(value, "u2") for value in (0, 4095, 65535)] == [0, 15, 255]
    assert [one(value, "u4") for value in (0, 2**31, 2**32 - 1)] == [0, 128, 255]
    for kind in ("i1", "i2", "i4"):
        assert one(0, kind) == 128
    assert [one(value, "f4") for value in (0, 1)] == [0, 255]
    assert [one(value, "u2", value_range=(0, 4095)) for value in (0, 4095, 5000)] == [0, 255, 255]
    twelve = np.full((8, 12), 0, np.uint8)
    twelve[:, 9:] = 255
    check(tiff(twelve, _256=8, _258=12), np.array([[0] * 6 + [255] * 2] * 8))


def test_one_picture_does_not_change_the_rule():
    for kind in ("u2", "u4", "f4"):
        dark = (WIDE[kind] / 256).astype(WIDE[kind].dtype)
        check(tiff(dark), GREY * 0, atol=1)
    over = WIDE["f4"].copy()
    over.ravel()[over.argmax()] = 1.5  # less than 1 % of a larger picture
    large = np.tile(over, (16, 16))
    large[8:] = WIDE["f4"].max()
    config = DataConfig(image_size=128, channels=1)
    assert decode_image(tiff(large), "x", config)[0, 0, 0] == GREY[0, 0]


@pytest.mark.parametrize("low", [-1.0, 0.0])
def test_floats_beyond_zero_to_one_are_refused_by_name(low):
    pixels = (low + GREY / 255 * 100).astype(np.float32)
    message = r"^x: has 32-bit floats from .* to .*, not from 0 to 1; set data\.value_range"
    with pytest.raises(BadFileError, match=message):
        decode(tiff(pixels))
    check(tiff(pixels), GREY, value_range=(low, low + 100))
    pixels[0, 0] = np.nan
    assert (decode(tiff(pixels), value_range=(-300.0, 400.0))[0, 0] == 0).all()


def test_twelve_bits_in_sixteen_are_kept_with_a_value_range():
    twelve, colours = GREY.astype(np.uint16) * 16, COLOUR.astype(np.uint16) * 16
    alpha = np.dstack([colours, np.full((8, 8), 65535, np.uint16)])
    for order in "<>":
        for packed in (False, True):
            check(tiff(twelve, order, packed), GREY // 16)
            check(tiff(twelve, order, packed), GREY, value_range=(0, 4080))
            check(tiff(colours, order, packed), COLOUR // 16)
            check(tiff(colours, order, packed), COLOUR, value_range=(0, 4080))
    check(save(twelve), GREY, value_range=(0, 4080))
    check(deep_png(colours, 2), COLOUR, value_range=(0, 4080))
    check(deep_png(alpha, 6), COLOUR, value_range=(0, 4080))
    alpha[..., 3] = 0
    check(deep_png(alpha, 6), COLOUR, value_range=(0, 4080))
    check(save(GREY), GREY, value_range=(0, 4080))  # 8 bits have no other range
    grey_alpha = np.dstack([twelve, np.full((8, 8), 65535, np.uint16)])
    check(deep_png(grey_alpha, 4), GREY // 16)
    with pytest.raises(BadFileError, match=r"^x: has 16-bit samples of which only the upper 8"):
        decode(deep_png(grey_alpha, 4), value_range=(0, 4080))


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
def test_transparent_pictures_are_laid_over_black_unless_nothing_is_opaque(form):
    options = {"lossless": True, "exact": True} if form == "WEBP" else {}
    half = np.where(np.arange(8)[:, None, None] < 4, OPAQUE, CLEAR)
    for colours in (COLOUR, np.repeat(GREY[..., None], 1 if form != "WEBP" else 3, 2)):
        expected = np.broadcast_to(colours, (8, 8, 3))
        check(save(np.dstack([colours, CLEAR]), form, **options), expected)
        check(save(np.dstack([colours, half]), form, **options), expected * (half > 0))
    check(save(np.dstack([COLOUR, CLEAR]), "BMP"), COLOUR)


def test_palettes_and_their_transparency():
    palette = Image.fromarray(COLOUR).quantize(16)
    colours = np.asarray(palette.convert("RGB"))
    for form in ("PNG", "TIFF", "BMP"):
        check(save(palette, form), colours)
    check(save(palette, transparency=bytes(16)), colours)
    key = palette.getpixel((0, 0))
    check(save(palette, transparency=key), colours * (np.asarray(palette) != key)[..., None])
    deep = (GREY.astype(np.uint16) << 8) | 0x7F
    assert decode(save(deep, transparency=int(deep[0, 0])))[0, 0, 0] == 0


def test_premultiplied_colours_and_palettes_of_eight_bits():
    rgba = save(np.dstack([COLOUR, CLEAR]), "TIFF")
    at = rgba.index(struct.pack("<HHI", 338, 3, 1)) + 8
    check(rgba[:at] + b"\1\0" + rgba[at + 2 :], COLOUR)  # of associated alpha
    palette = Image.fromarray(COLOUR).quantize(16)
    content = save(palette, "TIFF")
    at = content.index(struct.pack("<HHI", 320, 3, 768)) + 8
    (place,) = struct.unpack_from("<I", content, at)
    table = np.frombuffer(content, "<u2", 768, place) >> 8
    content = content[:place] + table.astype("<u2").tobytes() + content[place + 1536 :]
    check(content, np.asarray(palette.convert("RGB")))


def test_other_modes():
    check(save(Image.fromarray(GREY).convert("1", dither=0)), (GREY >= 128) * 255)
    flat = Image.new("RGB", (8, 8), (200, 30, 60))
    for form in ("JPEG", "TIFF"):
        check(save(flat.convert("CMYK"), form), np.asarray(flat), atol=3)
    check(save(flat.convert("YCbCr"), "TIFF"), np.asarray(flat), atol=3)
    check(save(COLOUR, "WEBP", lossless=True), COLOUR)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_orientation_is_applied(form, turn):
    wide = np.zeros((8, 16), np.uint8)
    wide[:4, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"tiffinfo": {274: turn}} if form == "TIFF" else {"exif": exif}
    content = save(np.dstack([wide] * 3), form, **options)
    corner = [(0, 0), (0, 0), (0, 1), (1, 1), (1, 0), (0, 0), (0, 1), (1, 1), (1, 0)][turn]
    bright = decode(content).mean(2) > 128
    assert bright[-corner[0], -corner[1]]
    assert picture_size(content) == ((16, 8) if turn < 5 else (8, 16))


def test_orientation_is_read_from_a_profile_and_from_xmp():
    exif = Image.Exif()
    exif[0x0112] = 3
    block = exif.tobytes()
    packet = b'<x tiff:Orientation="3"/>'
    head = b"http://ns.adobe.com/xap/1.0/\0"
    plain = save(GREY, "JPEG", quality=95)
    segment = b"\xff\xe1" + struct.pack(">H", len(head + packet) + 2) + head + packet
    check(plain[:2] + segment + plain[2:], decode(plain)[::-1, ::-1])
    plain = save(GREY)
    text = f"\nexif\n{len(block):8}\n{block.hex()}\n".encode()
    for kind, body in (
        (b"tEXt", b"Raw profile type exif\0" + text),
        (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet),
    ):
        chunk = struct.pack(">I", len(body)) + kind + body + bytes(4)
        check(plain[:33] + chunk + plain[33:], GREY[::-1, ::-1])


def test_each_cause_has_its_own_sentence():
    planes = tiff(COLOUR.astype(np.uint16), _284=2)
    causes = {
        b"": "is empty; replace or remove it",
        save(GREY)[:60]: "is not a whole image file; replace",
        save(GREY, "GIF"): "is a GIF file, which is not supported; convert it to PNG",
        save(GREY, "JPEG2000"): "is a JPEG 2000 file, which",
        b"\0\0\0\x1cftypavif" + bytes(20): "is a HEIF or AVIF file",
        tiff(
            (COLOUR / 255).astype(np.float32)
        ): r"is a TIFF \(photometric 2, .*32-bit float samples",
        tiff(
            GREY / 255
        ): r"is a TIFF \(photometric 1, 1 x 64-bit float samples\) file, which is not",
        tiff(GREY, ">", big=True): "is a big-endian BigTIFF file",
        planes: r"is a TIFF \(photometric 2, 3 x 16-bit samples in planes\) file",
    }
    for content, sentence in causes.items():
        with pytest.raises(BadFileError, match=f"^x: {sentence}"):
            decode(content)


def test_further_frames_are_counted():
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY), Image.fromarray(GREY // 2)]
    for form in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True} if form == "WEBP" else {}
        content = save(frames[0], form, save_all=True, append_images=frames[1:], **options)
        assert containers.further_frames(content) == 2
        assert containers.further_frames(save(frames[0], form, **options)) == 0
        check(content, GREY)
    default = save(frames[0], save_all=True, default_image=True, append_images=frames[1:])
    assert containers.further_frames(default) == 2
    for order, big in (("<", False), (">", False), ("<", True)):
        content = tiff(GREY, order, pages=4, big=big)
        assert containers.further_frames(content) == 3
        check(content, GREY)
        # Smaller copies of a page are not pictures.
        assert containers.further_frames(tiff(GREY, order, pages=4, big=big, _254=1)) == 0


def mask_files():
    """The same mask in every mode, and where it is defective."""
    defective = np.zeros((8, 8), bool)
    defective[2, 1:6] = True
    ones = defective.astype(np.uint8)
    files = {f"0/{top}": save(ones * top) for top in (1, 2, 100, 255)}
    files |= {"16 bits": save(ones.astype(np.uint16)), "1 bit": save(defective)}
    files |= {"32 bits": tiff(ones.astype(np.uint32)), "float": tiff(ones.astype(np.float32))}
    files["white is zero"] = tiff((~defective).astype(np.uint16) * 65535, white_is_zero=True)
    files["blue"] = save(np.dstack([ones * 0, ones * 0, ones]))
    files["16-bit colours"] = deep_png(np.dstack([ones] * 3).astype(np.uint16), 2)
    palette = Image.fromarray(ones)
    palette.putpalette([0, 0, 0, 128, 0, 0])
    files["palette"] = save(palette)
    palette = Image.fromarray(1 - ones)
    palette.putpalette([255, 255, 255, 0, 0, 0])
    files["white first"] = save(palette)
    for paint in (0, 255):
        colours = np.full((8, 8, 3), paint, np.uint8)
        files[f"alpha, painted in {paint}"] = save(np.dstack([colours, ones * 255]))
    files["alpha, black on white"] = save(np.dstack([255 - ones * 255] * 3 + [ones * 255]))
    files["alpha 0"] = save(np.dstack([ones * 255] * 3 + [CLEAR]))
    files["alpha 255"] = save(np.dstack([ones * 255] * 3 + [OPAQUE]))
    return files, defective


@pytest.mark.parametrize("kind", mask_files()[0])
def test_masks_of_every_mode_are_the_same(kind):
    files, defective = mask_files()
    told = []
    found = decode_mask(files[kind], "m", size=(8, 8), note=lambda *note: told.append(note))
    np.testing.assert_array_equal(found, defective)
    assert not told
