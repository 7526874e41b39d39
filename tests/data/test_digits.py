import numpy as np
import pytest
from sklearn.datasets import load_digits as sklearn_digits

from daad_jax.data import list_categories, load_dataset
from daad_jax.data.sources import digits
from daad_jax.errors import ConfigError


@pytest.fixture
def config(make_config):
    return make_config(source="digits", category="8", channels=1, image_size=8, resize="nearest")


def test_pixels_are_the_scans(config):
    scans = sklearn_digits()
    dataset = load_dataset(config, "8")
    for image_set in (dataset.train, dataset.test):
        indices = [int(name.rsplit("/", 1)[1]) for name in image_set.names]
        expected = np.rint(scans.images[indices] / 16 * 255)
        np.testing.assert_array_equal(image_set.images[..., 0], expected)
        classes = [int(name.split("/")[1]) for name in image_set.names]
        np.testing.assert_array_equal(classes, scans.target[indices])


def test_split_is_disjoint_and_whole():
    _, labels = digits.read_digits()
    train, test = digits.split_digits(labels)
    assert sorted([*train, *test]) == list(range(1797))
    for label in range(10):
        own_train, own_test = train[labels[train] == label], test[labels[test] == label]
        assert len(own_train) == len(np.flatnonzero(labels == label)) * 4 // 5
        assert own_train.max() < own_test.min()


def test_one_class_is_normal(config):
    config.calibration_fraction = 0.1
    dataset = load_dataset(config, "8")
    assert all(name.startswith("train/8/") for name in dataset.train.names)
    assert set(dataset.train.kinds) == {"good"}
    assert (len(dataset.train), len(dataset.calibration)) == (125, 14)
    assert not set(dataset.train.names) & set(dataset.calibration.names)
    assert len(dataset.test) == 364
    assert np.sum(dataset.test.labels == 0) == 35
    assert set(dataset.test.kinds) == {"good", *"012345679"}


def test_resized_with_the_filter(config):
    config.image_size, config.channels = 32, 3
    nearest = load_dataset(config, "0").test.images
    config.resize = "bilinear"
    bilinear = load_dataset(config, "0").test.images
    assert nearest.shape == bilinear.shape == (364, 32, 32, 3)
    assert np.any(nearest != bilinear)


def test_categories(config):
    assert list_categories(config) == ["8"]
    config.category = "all"
    assert list_categories(config) == list("0123456789")
    config.category = "eight"
    with pytest.raises(ConfigError, match=r"^data\.category: no class 'eight'; known: 0, 1"):
        list_categories(config)
