import numpy as np
import pytest

from daad_jax.data import textures


@pytest.fixture(scope="module", params=textures.CATEGORIES)
def dataset(request):
    return textures.load_textures(request.param, calibrate=True)


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
    again = textures.load_textures(dataset.category, calibrate=True)
    np.testing.assert_array_equal(dataset.train.images, again.train.images)
    np.testing.assert_array_equal(dataset.test.images, again.test.images)
    np.testing.assert_array_equal(dataset.test.masks, again.test.masks)


def test_nothing_is_held_out_unless_asked():
    assert len(textures.load_textures("brick", calibrate=False).calibration) == 0
