"""Folders that are not laid out as MVTec AD: flat, good beside bad, a share of the good as test."""

import itertools

import numpy as np
import pytest

from daad_jax.config import DataConfig, validate
from daad_jax.config.presets import digits, folder
from daad_jax.data import list_categories, load_dataset
from daad_jax.data.dataset import hold_out
from daad_jax.data.sources.layout import is_category
from daad_jax.errors import ConfigError, DataError
from tests.data.test_folder import config_for, make_category, write


def fill(folder, count, first=0):
    for index in range(count):
        write(folder / f"{index:03d}.png", first + index, flat=False)
    return folder


def load(root, **fields):
    return load_dataset(config_for(root, "", **fields), "")


def numbers(part):
    return [int(name[-7:-4]) for name in part.names]


def test_the_pictures_of_a_flat_folder_are_good(tmp_path, capsys):
    fill(tmp_path / "bolt", 10)
    fill(tmp_path / "bolt/old", 2)
    dataset = load(tmp_path / "bolt", calibration_fraction=0.2)
    assert (len(dataset.train), len(dataset.calibration), len(dataset.test)) == (8, 2, 0)
    assert dataset.category == "bolt"
    assert dataset.train.kinds == ["good"] * 8
    assert "2 image file(s) are not used, in old;" in capsys.readouterr().err


def test_good_and_bad_folders_beside_each_other(tmp_path):
    fill(tmp_path / "ok", 20)
    fill(tmp_path / "KO", 3, 100)
    fill(tmp_path / "dent", 2, 150)
    fill(tmp_path / "maybe", 2, 200)
    dataset = load(tmp_path, good="ok", bad="ko, dent", calibration_fraction=0.1)
    assert (len(dataset.train), len(dataset.calibration)) == (14, 2)
    assert dataset.test.kinds == ["good"] * 4 + ["KO"] * 3 + ["dent"] * 2
    assert dataset.test.names[0].startswith("ok/")
    everything = numbers(dataset.train) + numbers(dataset.calibration) + numbers(dataset.test)[:4]
    assert sorted(everything) == list(range(20))


def test_masks_of_bad_pictures_beside_good_ones(tmp_path):
    fill(tmp_path / "ok", 5)
    fill(tmp_path / "ko", 1)
    write(tmp_path / "ground_truth/ko/000_mask.png", 255)
    dataset = load(tmp_path, good="ok", bad="ko")
    masks = np.stack(dataset.test.masks)
    assert masks.sum() == 256
    assert masks.any(axis=(1, 2)).tolist() == [False] * 2 + [True]


def test_names_apply_to_train_and_test(tmp_path, capsys):
    root = make_category(tmp_path, masks=False)
    for part in ("train", "test"):
        (root / part / "good").rename(root / part / "fine")
    fill(root / "test/good", 1)
    fill(root / "test/stain", 1)
    config = config_for(tmp_path, good="ok,fine")
    dataset = load_dataset(config, "nut")
    assert len(dataset.train) == 10
    # A folder that is called good is a defect like any other.
    assert dataset.test.kinds == ["good"] * 3 + ["bent"] * 3 + ["folder good", "stain"]
    assert list_categories(config_for(tmp_path, "all", good="ok,fine")) == ["nut"]
    capsys.readouterr()
    chosen = load_dataset(config_for(tmp_path, good="fine", bad="bent"), "nut")
    assert chosen.test.kinds == ["good"] * 3 + ["bent"] * 3
    assert "2 image file(s) are not used, in test/good, test/stain" in capsys.readouterr().err


def test_a_share_of_the_good_pictures_is_tested(tmp_path):
    root = fill(tmp_path / "nut/train/good", 20).parents[1]
    dataset = load(root, test_fraction=0.3, calibration_fraction=0.5)
    assert (len(dataset.train), len(dataset.calibration), len(dataset.test)) == (7, 7, 6)
    assert dataset.test.kinds == ["good"] * 6
    assert dataset.test.names[0].startswith("train/good/")


def test_the_share_comes_on_top_of_the_test_folder(tmp_path):
    dataset = load(make_category(tmp_path), test_fraction=0.3)
    assert len(dataset.train) == 7
    assert dataset.test.kinds == ["good"] * 6 + ["bent"] * 3
    masks = np.stack(dataset.test.masks)
    assert masks.any(axis=(1, 2)).tolist() == [False] * 6 + [True] * 3


def test_a_share_that_leaves_nothing_is_one_line(tmp_path):
    fill(tmp_path, 2)
    with pytest.raises(DataError, match=r"^data\.test_fraction: holds out all 2 .* add images, or"):
        load(tmp_path, test_fraction=0.5)


def test_the_same_pictures_are_trained_on_with_other_test_pictures(tmp_path):
    fill(tmp_path / "a/ok", 10)
    fill(tmp_path / "a/ko", 2)
    fill(tmp_path / "b/ok", 3, 50)
    fill(tmp_path / "b/ko", 1, 60)
    fields = {"good": "ok", "bad": "ko"}
    here = load(tmp_path / "a", **fields)
    there = load(tmp_path / "a", test_root=str(tmp_path / "b"), **fields)
    assert there.train.names == here.train.names
    assert there.test.kinds == ["good"] * 2 + ["good"] * 3 + ["ko"]


@pytest.mark.parametrize("groups", [4, 7, 20])
def test_groups_are_whole_in_all_three_parts(groups):
    for seed in range(5):
        config = DataConfig(
            calibration_fraction=0.2, calibration_groups=groups, split_seed=seed, test_fraction=0.3
        )
        parts = hold_out(100, config)
        assert sorted(np.concatenate(parts)) == list(range(100))
        owner = np.empty(100, int)
        for number, part in enumerate(parts):
            owner[part] = number
        bounds = np.cumsum([0, *map(len, np.array_split(np.arange(100), groups))])
        for begin, end in itertools.pairwise(bounds):
            assert len(set(owner[begin:end])) == 1
        assert len(parts.train) > 0


def test_a_draw_of_test_pictures_is_no_draw_of_calibration_pictures():
    same = DataConfig(calibration_fraction=0.2)
    only = hold_out(100, DataConfig(test_fraction=0.2))
    assert hold_out(100, same).test.size == 0 == only.calibration.size
    assert not np.array_equal(hold_out(100, same).calibration, only.test)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"good": " , "}, r"^data\.good: has no name"),
        ({"good": "a/b"}, r"^data\.good: 'a/b' is a path"),
        ({"good": "ok", "bad": "ko,OK"}, r"^data\.bad: 'ok' is in data\.good, too"),
        ({"test_fraction": 1.0}, r"^data\.test_fraction: 1\.0 must be"),
    ],
)
def test_bad_names_are_one_line(fields, message):
    config = folder()
    for name, value in fields.items():
        setattr(config.data, name, value)
    with pytest.raises(ConfigError, match=message):
        validate(config)


def test_other_sources_have_no_folders():
    config = digits()
    config.data.test_fraction = 0.2
    with pytest.raises(ConfigError, match=r"^data\.test_fraction: is for the source 'folder'"):
        validate(config)


def test_absent_folders_are_named(tmp_path):
    fill(tmp_path / "ok", 5)
    fill(tmp_path / "defects", 1)
    with pytest.raises(DataError, match=r"^data\.bad: no folder 'defect' in .*mean 'defects'\?"):
        load(tmp_path, good="ok", bad="defect")
    with pytest.raises(DataError, match=r"train/good: missing; .*there is 'defects', 'ok'$"):
        load(tmp_path)
    with pytest.raises(DataError, match=r"under .*; there is 'defects', 'ok', name the folder of"):
        list_categories(config_for(tmp_path, "all"))


def test_a_category_is_told_from_a_folder_of_categories(tmp_path):
    make_category(tmp_path / "parts")
    fill(tmp_path / "flat", 1)
    fill(tmp_path / "flat/inner", 1)
    fill(tmp_path / "beside/ok", 1)
    found = {
        name: is_category(config_for(tmp_path / name, good="ok,good"))
        for name in ("parts", "parts/nut", "flat", "beside")
    }
    assert found == {"parts": False, "parts/nut": True, "flat": True, "beside": True}
