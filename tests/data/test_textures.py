import numpy as np
import pytest

from daad_jax.data import textures


@pytest.fixture(scope="module", params=textures.CATEGORIES)
def dataset(request):
    return textures.load_textures(request.param, calibrate=True)


def positions(photograph, crops):
    """Row of each crop in its photograph, by exact search of its first row of pixels."""
    rows = []
    windows = np.lib.stride_tricks.sliding_window_view(photograph, textures.CROP, axis=1)
    for crop in crops:
        hits = np.argwhere((windows == crop[0]).all(axis=-1))
        rows.append(
            [
                top
                for top, left in hits
                if (photograph[top : top + 64, left : left + 64] == crop).all()
            ]
        )
    return rows


def test_splits_come_from_disjoint_rows(dataset):
    photograph = textures.read_photograph(dataset.category)
    good = dataset.test.images[dataset.test.labels == 0][:20, ..., 0]
    for crops, (first, end) in (
        (dataset.train.images[:20, ..., 0], (0, 256)),
        (dataset.calibration.images[:20, ..., 0], (256, 320)),
        (good, (320, 512)),
    ):
        for tops in positions(photograph, crops):
            assert any(first <= top and top + 64 <= end for top in tops)


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
