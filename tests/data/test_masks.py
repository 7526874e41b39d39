import io

import numpy as np
import pytest
from PIL import Image

from daad_jax.data import load_dataset, masks
from daad_jax.data.masks import PackedMask, decode_mask, shrink
from daad_jax.errors import BadFileError
from daad_jax.evaluation.evaluate import count_masks
from tests.data.test_folder import config_for, make_category


def decode(pixels, form="PNG", **options):
    """Returns a decoded mask, and what is said of it."""
    buffer, told = io.BytesIO(), []
    Image.fromarray(pixels).save(buffer, form, **options)
    mask = decode_mask(
        buffer.getvalue(),
        "m",
        note=lambda sentence, name: told.append(sentence),
    )
    return mask, told


def square(top=255, size=64):
    pixels = np.zeros((size, size), np.uint8)
    pixels[21:43, 21:43] = top
    return pixels


def test_a_jpeg_mask_is_cut_at_the_middle_with_a_warning():
    pixels = square()
    mask, told = decode(pixels, "JPEG", quality=60)
    np.testing.assert_array_equal(mask, pixels > 0)
    assert told == [masks.FRINGED]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=60)
    mask, told = decode(np.asarray(Image.open(buffer)))  # saved as PNG later
    np.testing.assert_array_equal(mask, pixels > 0)
    assert told == [masks.FRINGED]


def test_smooth_edges_are_cut_and_kinds_of_defects_are_not():
    rows, columns = np.mgrid[:61, :61]
    distance = np.hypot(rows - 30, columns - 30)
    edges = np.clip(255 * (20 - distance), 0, 255).astype(np.uint8)
    mask, told = decode(edges)
    np.testing.assert_array_equal(mask, edges >= 128)
    assert told == [masks.FRINGED]
    edges[:3, :3], edges[0, 0] = 60, 20  # a defect of another grey value
    mask, told = decode(edges)
    np.testing.assert_array_equal(mask[:3, :3], edges[:3, :3] > 30)
    assert told == [masks.FRINGED]
    kinds = square(1)
    kinds[:4, :4], kinds[8:12] = 2, 7
    mask, told = decode(kinds)
    np.testing.assert_array_equal(mask, kinds > 0)
    assert told == [masks.KINDS]


def test_a_mask_without_a_defect_is_told_of_and_one_of_defect_alone_is_not():
    assert decode(square(0)) == (pytest.approx(np.zeros((64, 64))), [masks.EMPTY])
    mask, told = decode(np.ones((8, 8), np.uint8))
    assert mask.all()
    assert not told


@pytest.mark.filterwarnings("error")
def test_a_float_mask_may_hold_the_largest_numbers():
    pixels = np.zeros((8, 8), np.float32)
    pixels[2, 2], pixels[4:, 4:] = 0.5, np.inf
    mask, _ = decode(pixels, "TIFF")
    np.testing.assert_array_equal(mask, pixels > 1)


def test_resized_masks_are_defective_where_half_a_pixel_is():
    pixels = np.zeros((8, 8), bool)
    pixels[0, 0:2] = pixels[0:2, 2:4] = pixels[2, 4] = True
    expected = np.zeros((4, 4), bool)
    expected[0, :2] = True
    np.testing.assert_array_equal(shrink(pixels, (4, 4)), expected)


@pytest.mark.parametrize("size", [1, 3, 7, 32, 100])
@pytest.mark.parametrize("shape", [(1, 1), (40, 64), (97, 31), (256, 256)])
def test_every_defect_keeps_a_pixel_at_every_size(shape, size):
    rng = np.random.default_rng(0)
    for _ in range(10):
        row, column = (int(rng.integers(0, side)) for side in shape)
        pixels = np.zeros(shape, bool)
        pixels[row : row + 2, column] = True
        height, width = size, 2 * size
        small = shrink(pixels, (height, width))
        assert small.any()
        # It is where the defect is.
        rows, columns = np.nonzero(small)
        moved = np.abs((rows + 0.5) / height - (row + 1) / shape[0])
        assert moved.max() <= 1 / height + 2 / shape[0]
        moved = np.abs((columns + 0.5) / width - (column + 0.5) / shape[1])
        assert moved.max() <= 1 / width + 1 / shape[1]


def test_a_thin_scratch_stays_a_line_beside_a_large_defect():
    pixels = np.zeros((512, 512), bool)
    pixels[250:253, 96:400] = True
    pixels[:64, :64] = True
    expected = np.zeros((64, 64), bool)
    expected[:8, :8] = expected[31, 12:50] = True
    np.testing.assert_array_equal(shrink(pixels, (64, 64)), expected)


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (64, 33)])
def test_a_packed_mask_is_the_mask(shape):
    mask = np.random.default_rng(0).random(shape) < 0.3
    packed = PackedMask(mask)
    assert packed.shape == shape
    np.testing.assert_array_equal(np.asarray(packed), mask)
    assert np.asarray(packed).dtype == bool


def test_masks_keep_the_size_of_their_picture(tmp_path):
    nut = make_category(tmp_path)
    defect = np.zeros((300, 40), np.uint8)
    defect[299, 39] = 255
    save(nut / "test/bent/001.png", np.arange(12000, dtype=np.uint8).reshape(300, 40))
    save(nut / "ground_truth/bent/001_mask.png", defect)
    save(nut / "test/good/000.png", np.arange(160, dtype=np.uint8).reshape(8, 20))
    masks = load_dataset(config_for(tmp_path), "nut").test.masks
    assert [mask.shape for mask in masks] == [(8, 20), *[(16, 16)] * 3, (300, 40), (16, 16)]
    np.testing.assert_array_equal(masks[4], defect > 0)


def save(path, pixels, turn=1):
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(pixels).save(path, exif=exif)


def test_a_mask_must_have_the_size_of_its_image(tmp_path):
    nut = make_category(tmp_path)
    image, mask = nut / "test/bent/001.png", nut / "ground_truth/bent/001_mask.png"
    defect = np.zeros((16, 20), np.uint8)
    defect[3:5, 2:9] = 255
    save(mask, defect)
    message = r"001_mask\.png: is 20 x 16 and its image 16 x 16 pixels; give the mask the size"
    with pytest.raises(BadFileError, match=message):
        load_dataset(config_for(tmp_path), "nut")
    dataset = load_dataset(config_for(tmp_path, on_bad_file="skip"), "nut")
    assert "test/bent/001.png" not in dataset.test.names
    # The sizes are those of the upright pictures.
    save(image, np.zeros((20, 16), np.uint8) + np.arange(16, dtype=np.uint8), turn=6)
    whole = load_dataset(config_for(tmp_path), "nut").test.masks[4]
    save(mask, np.rot90(defect), turn=6)
    np.testing.assert_array_equal(load_dataset(config_for(tmp_path), "nut").test.masks[4], whole)
    save(mask, np.rot90(defect))
    with pytest.raises(BadFileError, match="is 16 x 20 and its image 20 x 16"):
        load_dataset(config_for(tmp_path), "nut")


def test_masks_are_told_of_once_and_counted(tmp_path, capsys):
    nut = make_category(tmp_path)
    for index in (0, 1):
        save(nut / f"ground_truth/bent/{index:03d}_mask.png", square(0, 16))
    test = load_dataset(config_for(tmp_path), "nut").test
    sizes = {"smallest": [16, 16], "largest": [16, 16]}
    assert count_masks(test) == {"images": 3, "empty": 2, "defective_pixels": 4} | sizes
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "mask" in line]
    assert "nut: 2 mask(s) of defective images show no defect; " in line
    assert line.endswith("000_mask.png for example")
    none = {"images": 0, "empty": 0, "defective_pixels": 0}
    assert count_masks(test.take(slice(0, 3))) == none | sizes
    assert count_masks(test.take(slice(0))) == none
