import itertools

import numpy as np
import pytest

from daad_jax.config import DataConfig
from daad_jax.data import load_dataset
from daad_jax.data.dataset import hold_out
from daad_jax.errors import ConfigError
from tests.data.test_folder import config_for, make_category, write


def draw(count, fraction, groups=0, seed=0):
    config = DataConfig(calibration_fraction=fraction, calibration_groups=groups, split_seed=seed)
    train, calibration, _ = hold_out(count, config)
    assert sorted([*train, *calibration]) == list(range(count))
    assert (np.diff(train) > 0).all()
    assert (np.diff(calibration) > 0).all()
    return train, calibration


def test_calibration_images_represent_a_set_with_a_trend(tmp_path):
    # Brightness grows with the file's number. The last tenth would be far from the mean.
    make_category(tmp_path)
    for index in range(100):
        write(tmp_path / f"nut/train/good/{index:03d}.png", 2 * index)
    for seed in range(5):
        config = config_for(tmp_path, calibration_fraction=0.2, split_seed=seed)
        dataset = load_dataset(config, "nut")
        difference = dataset.calibration.images.mean() - dataset.train.images.mean()
        assert abs(difference) < 40  # 100 if the last fifth is held out


@pytest.mark.parametrize("count", [40, 41, 125, 1000])
@pytest.mark.parametrize("groups", [2, 7, 20])
def test_groups_are_never_divided(count, groups):
    for seed in range(5):
        _, calibration = draw(count, 0.1, groups, seed)
        bounds = np.cumsum([0, *(len(part) for part in np.array_split(np.arange(count), groups))])
        held_out = np.isin(np.arange(count), calibration)
        for begin, end in itertools.pairwise(bounds):
            assert len(set(held_out[begin:end])) == 1


def test_groups_are_as_many_as_the_fraction_asks_for():
    assert len(draw(100, 0.1, 10)[1]) == 10
    assert len(draw(100, 0.11, 10)[1]) == 20
    assert len(draw(20, 0.01, 20)[1]) == 2  # one group would be one image
    assert len(draw(100, 0.99, 10)[1]) == 90  # one group stays in training
    assert len(draw(5, 0.2, 50)[1]) == 2  # more groups than images
    assert len(draw(0, 0.2, 5)[1]) == 0


def test_one_group_is_an_error():
    with pytest.raises(ConfigError, match=r"^data\.calibration_groups: one group cannot be"):
        draw(10, 0.1, groups=1)


def test_the_fraction_is_rounded_up_and_at_least_two():
    assert len(draw(100, 0.07)[1]) == 7  # 100 * 0.07 is 7.000000000000001
    assert len(draw(101, 0.07)[1]) == 8
    assert len(draw(10, 0.01)[1]) == 2
    assert len(draw(1, 0.5)[1]) == 1


@pytest.mark.parametrize("groups", [0, 5])
def test_nothing_is_held_out_for_fraction_zero(groups):
    assert len(draw(50, 0.0, groups)[1]) == 0


@pytest.mark.parametrize("groups", [0, 20])
def test_the_draw_depends_on_the_seed_alone(groups):
    first, again, other = (draw(100, 0.2, groups, seed)[1] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_groups_are_used_by_the_loader(tmp_path):
    make_category(tmp_path)
    config = config_for(tmp_path, calibration_fraction=0.3, calibration_groups=2)
    dataset = load_dataset(config, "nut")
    numbers = [int(name[-7:-4]) for name in dataset.calibration.names]
    assert numbers in ([0, 1, 2, 3, 4], [5, 6, 7, 8, 9])
