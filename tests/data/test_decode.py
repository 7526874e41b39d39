import io

import numpy as np
import pytest
from PIL import Image

from daad_jax.config import DataConfig
from daad_jax.data import decode as decode_lib
from daad_jax.data import masks
from daad_jax.errors import BadFileError, DataError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (8, 8), dtype=np.uint8)


def encode(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def decode(content, channels=1, size=8, resize="area"):
    config = DataConfig(image_size=size, channels=channels, resize=resize)
    return decode_lib.decode_image(content, "x.png", config)


def test_grey_is_repeated_or_kept():
    content = encode(Image.fromarray(GREY))
    np.testing.assert_array_equal(decode(content)[..., 0], GREY)
    np.testing.assert_array_equal(decode(content, 3), np.repeat(GREY[..., None], 3, 2))


def test_palette_rgba_and_cmyk_become_rgb():
    colour = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    rgb = Image.fromarray(colour)
    rgba = np.dstack([colour, np.full((8, 8), 255, np.uint8)])
    rgba[:2, :, 3] = 0
    out = decode(encode(Image.fromarray(rgba)), 3)
    np.testing.assert_array_equal(out[2:], colour[2:])
    np.testing.assert_array_equal(out[:2], 0)
    palette = rgb.quantize(16)
    np.testing.assert_array_equal(decode(encode(palette), 3), np.asarray(palette.convert("RGB")))
    flat = Image.new("RGB", (8, 8), (200, 30, 60)).convert("CMYK")
    out = decode(encode(flat, "TIFF"), 3)
    np.testing.assert_allclose(out.reshape(-1, 3).mean(0), (200, 30, 60), atol=2)


def test_area_resize_is_the_mean_of_the_pixels_that_fall_on_one():
    out = decode(encode(Image.fromarray(GREY)), size=4)[..., 0]
    expected = GREY.reshape(4, 2, 4, 2).astype(float).mean((1, 3))
    np.testing.assert_allclose(out, expected, atol=1)


def test_orientation_tags_are_obeyed():
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    content = encode(Image.fromarray(GREY), exif=exif)
    np.testing.assert_array_equal(decode(content)[..., 0], GREY[::-1, ::-1])


def test_arrays_are_resized_as_files_are():
    colour = RNG.integers(0, 256, (12, 8, 3), dtype=np.uint8)
    from_file = decode(encode(Image.fromarray(colour)), 3, size=4)
    from_array = decode_lib.resize_array(colour, DataConfig(image_size=4))
    np.testing.assert_array_equal(from_file, from_array)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"GIF and then text", "is not a whole image file"),
        (encode(Image.fromarray(GREY))[:-40], "is not a whole image file"),
    ],
)
def test_damaged_files_are_named(content, reason):
    with pytest.raises(DataError, match=rf"x\.png: {reason}; replace or remove it"):
        decode(content)


def test_image_bombs_are_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 32)
    with pytest.raises(DataError, match="too many pixels"):
        decode(encode(Image.fromarray(GREY)))


def test_equal_brightness_divides_by_the_mean_and_makes_it_mid_grey():
    pixels = np.array([[[10], [20]], [[30], [100]]], np.uint8)
    result = decode_lib.equalize_brightness(pixels)
    np.testing.assert_array_equal(result[..., 0], [[32, 64], [96, 255]])
    np.testing.assert_array_equal(decode_lib.equalize_brightness(pixels * 2), result)
    np.testing.assert_array_equal(decode_lib.equalize_brightness(pixels * 0), pixels * 0)
    config = DataConfig(image_size=2, channels=1, brightness="equal")
    np.testing.assert_array_equal(decode_lib.resize_array(pixels, config), result)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0]).save(buffer, format="PNG")
    np.testing.assert_array_equal(decode_lib.decode_image(buffer.getvalue(), "x", config), result)


def test_colours_that_cannot_be_converted_are_named(monkeypatch):
    def refuse(*arguments):
        raise ValueError("conversion not supported")

    monkeypatch.setattr(decode_lib, "to_mode", refuse)
    message = r"x\.png: has colours that cannot be converted \(L\); convert or remove it"
    with pytest.raises(BadFileError, match=message):
        decode(encode(Image.fromarray(GREY)))
    monkeypatch.setattr(masks, "to_mode", refuse)
    with pytest.raises(BadFileError, match=message):
        masks.decode_mask(encode(Image.fromarray(GREY)), "x.png", size=(8, 8))


def test_too_little_memory_is_not_taken_for_a_damaged_file(monkeypatch):
    def fail(*arguments, **named):
        raise MemoryError

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(MemoryError):
        decode(encode(Image.fromarray(GREY)))
