import numpy as np
import pytest

from daad_jax.config import DataConfig
from daad_jax.data import list_categories
from daad_jax.data.sources import textures
from daad_jax.errors import ConfigError


def load(category, **fields):
    fields = {"image_size": 64, "channels": 1, "calibration_fraction": 0.1, **fields}
    return textures.load(DataConfig(source="textures", **fields), category, None)


@pytest.fixture(scope="module", params=textures.CATEGORIES)
def dataset(request):
    return load(request.param)


def places(photograph, crop):
    """Tops and lefts of a crop in its photograph, by exact search of its first row of pixels."""
    windows = np.lib.stride_tricks.sliding_window_view(photograph, textures.CROP, axis=1)
    for top, left in np.argwhere((windows == crop[0]).all(axis=-1)):
        if (photograph[top : top + 64, left : left + 64] == crop).all():
            yield top, left


def test_regions_share_no_pixel():
    covered = np.zeros((512, 512), int)
    for region in (textures.TRAIN_REGION, textures.CALIBRATION_REGION, textures.TEST_REGION):
        for top, bottom, left, right in region:
            covered[top:bottom, left:right] += 1
    assert (covered == 1).all()


def test_crops_come_from_their_regions(dataset):
    photograph = textures.read_photograph(dataset.category)
    good = dataset.test.images[dataset.test.labels == 0][:20, ..., 0]
    for crops, region in (
        (dataset.train.images[:20, ..., 0], textures.TRAIN_REGION),
        (dataset.calibration.images[:20, ..., 0], textures.CALIBRATION_REGION),
        (good, textures.TEST_REGION),
    ):
        for crop in crops:
            assert any(
                top <= y and y + 64 <= bottom and left <= x and x + 64 <= right
                for y, x in places(photograph, crop)
                for top, bottom, left, right in region
            )


def test_defects_are_counted_masked_and_of_the_allowed_area(dataset):
    test = dataset.test
    assert (test.labels == 0).sum() >= 100
    assert (test.labels == 1).sum() >= 100
    assert {kind for kind in test.kinds if kind != "good"} == {
        "patch",
        "strip",
        "scratch",
        "stain",
    }
    areas = test.masks.mean(axis=(1, 2))
    assert (areas[test.labels == 0] == 0).all()
    assert areas[test.labels == 1].min() >= 0.005
    assert areas[test.labels == 1].max() <= 0.05
    assert len(set(test.names)) == len(test)


def test_pixels_outside_the_mask_are_the_photographs(dataset):
    photograph = textures.read_photograph(dataset.category)
    windows = np.lib.stride_tricks.sliding_window_view(photograph, (1, 64))[:, :, 0]
    for kind in ("patch", "strip", "scratch", "stain"):
        index = dataset.test.kinds.index(kind)
        image, mask = dataset.test.images[index, ..., 0], dataset.test.masks[index]
        row = int(np.argmin(mask.sum(axis=1)))
        top_left = np.argwhere((windows == image[row]).all(axis=-1))[0] - [row, 0]
        top, left = top_left
        crop = photograph[top : top + 64, left : left + 64]
        np.testing.assert_array_equal(image[~mask], crop[~mask])
        assert (image[mask] != crop[mask]).mean() > 0.5


def test_textures_are_the_same_every_time(dataset):
    again = load(dataset.category)
    np.testing.assert_array_equal(dataset.train.images, again.train.images)
    np.testing.assert_array_equal(dataset.test.images, again.test.images)
    np.testing.assert_array_equal(dataset.test.masks, again.test.masks)


def test_nothing_is_held_out_unless_asked():
    assert len(load("brick", calibration_fraction=0.0).calibration) == 0


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("image_size", 32, "image_size"),
        ("channels", 3, "image_size"),
        ("brightness", "equal", "brightness"),
    ],
)
def test_other_sizes_and_colours_are_an_error(field, value, named):
    with pytest.raises(ConfigError, match=rf"^data\.{named}: the textures need "):
        load("brick", **{field: value})


def test_categories():
    assert list_categories(DataConfig(source="textures")) == ["brick", "grass", "gravel"]
    assert list_categories(DataConfig(source="textures", category="grass")) == ["grass"]
    with pytest.raises(ConfigError, match=r"^data\.category: no texture 'gras'; did you mean"):
        list_categories(DataConfig(source="textures", category="gras"))
