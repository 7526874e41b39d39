import numpy as np
import pytest
from scipy import ndimage

from daad_jax.config import ScoreConfig
from daad_jax.errors import CheckpointError
from daad_jax.scoring.maps import resize_map, shown_maps
from daad_jax.scoring.scores import RawScores, Reference

RNG = np.random.default_rng(0)
ERROR = RNG.random((3, 24, 36)).astype(np.float32)
FEATURES = RNG.random((3, 6, 9)).astype(np.float32)
NONE = np.zeros(3)
RAW = RawScores(NONE, NONE, ERROR, FEATURES, NONE, NONE)
REFERENCE = Reference(1, np.full((24, 36), 0.5), np.full((6, 9), 4.0))


def settings(**fields):
    return ScoreConfig(**({"map_sigma": 0.0} | fields))


def test_the_default_map_is_the_smoothed_error():
    assert shown_maps(RAW, ScoreConfig(), None) is ERROR


def test_the_map_of_features_has_the_size_of_the_image():
    maps = shown_maps(RAW, settings(map="features"), None)
    assert (maps.shape, maps.dtype) == (ERROR.shape, np.float32)
    # Away from the edges a bilinear map is exact for a ramp.
    ramp = RAW._replace(feature_map=np.tile(np.arange(9, dtype=np.float32), (3, 6, 1)))
    row = shown_maps(ramp, settings(map="features"), None)[0, 10]
    np.testing.assert_allclose(row[2:-2], np.arange(2, 34) / 4 - 0.375, rtol=1e-5)


def test_the_fused_map_weighs_both_by_their_level_on_good_images():
    maps = shown_maps(RAW, settings(map="fused"), REFERENCE)
    features = shown_maps(RAW, settings(map="features"), None)
    np.testing.assert_allclose(maps, (ERROR / 0.5 + features / 4.0) / 2, rtol=1e-5)
    assert maps.dtype == np.float32
    with pytest.raises(
        CheckpointError, match=r"reference\.npz: is missing, and score\.map='fused'"
    ):
        shown_maps(RAW, settings(map="fused"), None)


def test_several_scales_are_averaged():
    point = np.zeros((1, 31, 41), np.float32)
    point[0, 15, 20] = 1.0
    smooth = ndimage.gaussian_filter(point, 1.0, axes=(1, 2))
    raw = RAW._replace(anomaly_map=smooth)
    maps = shown_maps(raw, settings(map_sigma=1.0, map_scales=(1.0, 3.0)), None)
    expected = (smooth + ndimage.gaussian_filter(point, 3.0, axes=(1, 2))) / 2
    np.testing.assert_allclose(maps, expected, atol=2e-4)
    assert maps.sum() == pytest.approx(1.0, rel=1e-3)


def test_maps_of_no_images():
    raw = RawScores(*(None if one is None else one[:0] for one in RAW))
    for name in ("error", "features", "fused"):
        scales = settings(map=name, map_scales=(0.0, 2.0))
        assert shown_maps(raw, scales, REFERENCE).shape == (0, 24, 36)


def test_a_map_is_resized_to_any_shape():
    assert resize_map(ERROR[0], (50, 7)).shape == (50, 7)
    np.testing.assert_array_equal(resize_map(ERROR[0], (24, 36)), ERROR[0])
    np.testing.assert_allclose(resize_map(np.ones((3, 4)), (9, 2)), 1.0)


def test_a_resized_map_keeps_its_places():
    anomaly_map = np.zeros((4, 8), np.float32)
    anomaly_map[1, 6] = 1.0
    values = resize_map(anomaly_map, (20, 80))
    assert (values.shape, values.dtype) == ((20, 80), np.float32)
    row, column = np.unravel_index(values.argmax(), values.shape)
    assert abs(row - 7) <= 1
    assert abs(column - 64.5) <= 1


def test_the_relative_map_is_divided_by_that_of_good_images():
    maps = shown_maps(RAW, settings(map="relative"), REFERENCE)
    np.testing.assert_allclose(maps, ERROR / 0.5, rtol=1e-6)
    with pytest.raises(CheckpointError, match=r"reference\.npz: .* score\.map='relative' needs it"):
        shown_maps(RAW, settings(map="relative"), None)
