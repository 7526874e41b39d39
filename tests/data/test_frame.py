"""Sizes that are no squares, padding, and ignored regions of prepared images."""

import io

import numpy as np
import pytest
from PIL import Image

from daad_jax.config import DataConfig
from daad_jax.data import decode
from daad_jax.data.dataset import ImageSet
from daad_jax.data.frame import Box, picture_box
from daad_jax.errors import ConfigError

GREY = np.random.default_rng(0).integers(0, 256, (40, 60, 1), dtype=np.uint8)


def prepare(pixels, **fields):
    return decode.resize_array(pixels, DataConfig(**{"channels": 1, **fields}))


@pytest.mark.parametrize("size", [(20, 30), [20, 30]])
def test_a_size_has_height_and_width(size):
    result = prepare(GREY, image_size=size)
    assert result.shape == (20, 30, 1)
    means = GREY.reshape(20, 2, 30, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(result[..., 0], means, atol=1)


@pytest.mark.parametrize(
    ("picture", "box"),
    [
        ((40, 60), Box(0, 0, 32, 48)),
        ((100, 50), Box(0, 16, 32, 16)),
        ((10, 60), Box(12, 0, 8, 48)),
        ((1, 4000), Box(15, 0, 1, 48)),
    ],
)
def test_padding_keeps_the_aspect_ratio_and_the_middle(picture, box):
    config = DataConfig(image_size=(32, 48), fit="pad")
    assert picture_box(picture, config) == box
    assert picture_box(picture, DataConfig(image_size=(32, 48))) == Box(0, 0, 32, 48)


def test_padding_does_not_count_and_has_the_mean_colour():
    colour = np.random.default_rng(1).integers(0, 256, (10, 40, 3), dtype=np.uint8)
    result = prepare(colour, image_size=40, fit="pad", channels=3)
    assert result.shape == (40, 40, 4)
    np.testing.assert_array_equal(result[15:25, :, :3], colour)
    np.testing.assert_array_equal(result[15:25, :, 3], 255)
    outside = np.delete(result, np.s_[15:25], axis=0)
    np.testing.assert_array_equal(outside[..., 3], 0)
    mean = np.rint(colour.mean(axis=(0, 1))).astype(np.uint8)
    np.testing.assert_array_equal(outside[..., :3], np.broadcast_to(mean, (30, 40, 3)))
    images = ImageSet(result[None], ["a"], ["good"])
    np.testing.assert_array_equal(images.images[0], result[..., :3])
    np.testing.assert_array_equal(images.valid[0], result[..., 3] > 0)
    assert ImageSet(result[None, ..., :3], ["a"], ["good"]).valid is None


@pytest.mark.parametrize("resize", ["area", "nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [32, 80])
@pytest.mark.parametrize("brightness", ["kept", "equal"])
def test_what_lies_in_an_ignored_region_changes_nothing(resize, size, brightness):
    fields = {"image_size": size, "ignore": "0.5,0.25,0.25,0.5", "resize": resize, "fit": "pad"}
    other = GREY.copy()
    other[10:30, 30:45] = 255 - other[10:30, 30:45]
    one, two = (prepare(pixels, brightness=brightness, **fields) for pixels in (GREY, other))
    np.testing.assert_array_equal(one, two)
    other[:9] = 255 - other[:9]
    assert (prepare(other, brightness=brightness, **fields) != one).any()


def test_boxes_are_fractions_of_the_picture():
    valid = prepare(GREY, image_size=(40, 60), ignore="0,0,0.25,0.1; 0.9,0.9,0.1,0.1")[..., 1]
    expected = np.full((40, 60), 255)
    expected[:4, :15] = expected[36:, 54:] = 0
    np.testing.assert_array_equal(valid, expected)


def test_a_mask_file_leaves_out_what_is_white(tmp_path):
    mask = np.zeros((40, 60), np.uint8)
    mask[:20, 30:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    config = DataConfig(image_size=(20, 30), channels=1, ignore=str(tmp_path / "mask.png"))
    buffer = io.BytesIO()
    Image.fromarray(GREY[..., 0]).save(buffer, "PNG")
    result = decode.decode_image(buffer.getvalue(), "x.png", config)
    np.testing.assert_array_equal(result[..., 1] == 0, mask[::2, ::2] > 0)
    assert decode.ignored_region(config) != config.ignore
    assert config.located().ignore == config.ignore


@pytest.mark.parametrize(
    ("ignore", "message"),
    [
        ("0,0,1,1", "leaves no pixel to score; make it smaller"),
        ("10,20,30,40", "'10,20,30,40' is not x,y,width,height in fractions"),
        ("0,0,0.5", "'0,0,0.5' is not x,y,width,height in fractions"),
        ("missing.png", r"missing\.png: cannot be read"),
    ],
)
def test_regions_that_cannot_be_used_are_named(ignore, message):
    with pytest.raises(ConfigError, match=rf"^data\.ignore: .*{message}"):
        prepare(GREY, image_size=16, ignore=ignore)
