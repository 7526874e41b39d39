import numpy as np
import pytest
from scipy import ndimage

import daad_jax
from daad_jax.evaluation.pseudo_defects import make_pseudo_defects
from tests.conftest import tiny_config, tiny_dataset

KINDS = ["patch", "scar", "stain", "halves"]


def normal_images(count, size, channels, seed=0):
    """Smooth random images whose pixels have a standard deviation of 40."""
    noise = np.random.default_rng(seed).standard_normal((count, size, size, channels))
    smooth = ndimage.gaussian_filter(noise, (0, size / 16, size / 16, 0))
    return np.clip(128 + 40 * smooth / smooth.std(), 0, 255).astype(np.uint8)


@pytest.fixture(
    scope="module", params=[(16, 1), (32, 3), (64, 1), (128, 3)], ids=lambda form: f"{form[0]}px"
)
def made(request):
    """Normal images, donors and the defects made of them."""
    normal, donors = normal_images(12, *request.param), normal_images(30, *request.param, seed=1)
    return normal, donors, make_pseudo_defects(normal, donors)


def test_every_image_gets_every_defect(made):
    normal, _, defects = made
    assert defects.images.shape == (48, *normal.shape[1:])
    assert defects.masks.shape == (48, *normal.shape[1:3])
    assert defects.images.dtype == np.uint8
    assert defects.masks.dtype == bool
    assert defects.kinds == [kind for kind in KINDS for _ in range(12)]


def test_pixels_outside_the_mask_are_untouched_and_those_inside_change(made):
    normal, _, defects = made
    base = np.tile(normal, (4, 1, 1, 1))
    changed = (defects.images != base).any(axis=-1)
    assert not changed[~defects.masks].any()
    assert changed[defects.masks].mean() > 0.9


def test_every_defect_can_be_seen(made):
    normal, donors, defects = made
    base = np.tile(normal, (4, 1, 1, 1)).astype(float)
    for image, before, mask in zip(defects.images, base, defects.masks, strict=True):
        change = np.sqrt(np.mean(np.square(image - before)[mask]))
        assert change >= 0.5 * donors.std()


def test_areas(made):
    _, _, defects = made
    size = defects.masks.shape[1]
    areas = defects.masks.mean(axis=(1, 2)).reshape(4, 12)
    for blobs in (areas[0], areas[2]):
        assert blobs.min() >= 0.005
        assert blobs.max() <= 0.06
    assert areas[1].min() * size >= 0.15  # a line has an area of its length times its width
    assert areas[1].max() * size <= 2 * max(1, size / 64)
    assert areas[3].min() > 0.3
    assert areas[3].max() < 0.7


def test_scars_are_thin(made):
    _, _, defects = made
    most = max(1, 2 * defects.masks.shape[1] // 64)
    for mask in defects.masks[12:24]:
        assert not ndimage.binary_erosion(mask, np.ones((most + 2, most + 2))).any()


def test_halves_join_the_image_and_one_donor(made):
    normal, donors, defects = made
    for image, before, mask in zip(defects.images[36:], normal, defects.masks[36:], strict=True):
        np.testing.assert_array_equal(image[~mask], before[~mask])
        assert any((donor[mask] == image[mask]).all() for donor in donors)


def test_the_seed_decides():
    normal, donors = normal_images(3, 32, 1), normal_images(5, 32, 1, seed=1)
    one, again = (make_pseudo_defects(normal, donors, seed=4) for _ in range(2))
    other = make_pseudo_defects(normal, donors, seed=5)
    np.testing.assert_array_equal(one.images, again.images)
    np.testing.assert_array_equal(one.masks, again.masks)
    assert (one.images != other.images).any(axis=(1, 2, 3)).all()


def test_the_given_images_stay_as_they_are():
    normal, donors = normal_images(3, 16, 1), normal_images(3, 16, 1, seed=1)
    before = normal.copy(), donors.copy()
    make_pseudo_defects(normal, donors)
    np.testing.assert_array_equal(normal, before[0])
    np.testing.assert_array_equal(donors, before[1])


def test_of_many_images_200_evenly_spaced_ones_are_used():
    normal = np.zeros((399, 16, 16, 1), np.uint8)
    normal[1::2] = 100
    defects = make_pseudo_defects(normal, normal_images(4, 16, 1))
    assert len(defects.images) == 800
    outside = defects.images[:200][~defects.masks[:200]]
    assert (outside == 0).all()


def test_on_a_black_ground_defects_are_drawn_until_they_show():
    rng = np.random.default_rng(0)
    images = np.zeros((20, 28, 28, 1), np.uint8)
    for image in images:
        top, left = rng.integers(6, 12, 2)
        image[top : top + 12, left : left + 5] = 255
    defects = make_pseudo_defects(images[:10], images[10:])
    base = np.tile(images[:10], (4, 1, 1, 1)).astype(float)
    change = np.square(defects.images - base).max(axis=-1) * defects.masks
    seen = np.sqrt(change.sum(axis=(1, 2)) / defects.masks.sum(axis=(1, 2)))
    assert (seen >= 0.5 * images[10:].std()).mean() > 0.9


def test_images_without_any_contrast_come_back():
    black = np.zeros((2, 16, 16, 1), np.uint8)
    assert make_pseudo_defects(black, black).masks.any(axis=(1, 2)).all()
    with_light = black.copy()
    with_light[0, 0, 0] = 255
    make_pseudo_defects(black, with_light)


@pytest.mark.slow
def test_images_too_small_for_pseudo_defects_are_evaluated_without_them(one_device):
    config = tiny_config(
        data__image_size=8,
        data__calibration_fraction=0.2,
        memory__division_rates=(1, 1, 1),
        train__steps=1,
    )
    dataset = tiny_dataset(config)
    state = daad_jax.fit(config, dataset, mesh=one_device, log=lambda _: None)
    summary = daad_jax.evaluate(config, state, dataset, mesh=one_device).summary
    assert summary["pseudo"] is None
    assert summary["threshold"] is not None
