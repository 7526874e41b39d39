import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from daad_jax.data import cache as cache_lib
from daad_jax.data import decode as decode_lib
from daad_jax.data import encoded, load_dataset
from daad_jax.errors import DataError
from tests.data.test_folder import config_for, make_category

REPOSITORY = Path(__file__).parents[2]
CHILD = r"""
import os, sys, time
from pathlib import Path
from daad_jax.config import DataConfig
from daad_jax.data import decode as decode_lib, load_dataset

root, cache, slow_after = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
config = DataConfig(root=root, image_size=16, memory_limit_mb=0)
decode, seen = decode_lib.decode_image, []

def slow_decode(*arguments, **named):
    seen.append(1)
    if len(seen) > slow_after:
        os.write(1, b"decoding\n")  # whole, though several threads come here
        time.sleep(60)
    return decode(*arguments, **named)

decode_lib.decode_image = slow_decode
dataset = load_dataset(config, "widget", cache)
print(int(dataset.train.images.astype(int).sum()), flush=True)
"""


@pytest.fixture
def load(image_folder, make_config, tmp_path):
    """Loads the folder, from memory or through a cache that no split is too small for."""

    def load(cache=tmp_path / "cache", **fields):
        fields = {"root": str(image_folder), "memory_limit_mb": 0, **fields}
        return load_dataset(make_config(**fields), "widget", cache)

    return load


@pytest.fixture
def decoded(monkeypatch):
    """The names of the images decoded so far."""
    names = []
    original = decode_lib.decode_image

    def decode(content, name, config):
        names.append(Path(name).name)
        return original(content, name, config)

    monkeypatch.setattr(decode_lib, "decode_image", decode)
    return names


def run_child(root, cache, slow_after=10**6):
    arguments = [sys.executable, "-c", CHILD, root, cache, str(slow_after)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)


def test_mapped_and_in_memory_are_equal(load):
    mapped, plain = load(), load(memory_limit_mb=1)
    assert isinstance(mapped.train.images, np.memmap)
    assert not isinstance(plain.train.images, np.memmap)
    for split in ("train", "test"):
        one, other = getattr(mapped, split), getattr(plain, split)
        np.testing.assert_array_equal(one.images, other.images)
        assert one.names == other.names


def test_decoded_once(load, decoded):
    first = load().test.images
    count = len(decoded)
    np.testing.assert_array_equal(load().test.images, first)
    assert count == len(decoded) == 10


@pytest.mark.parametrize(
    "change", [{"image_size": 8}, {"channels": 1}, {"resize": "nearest"}], ids=str
)
def test_parameters_make_another_entry(load, change):
    load()
    changed, plain = load(**change), load(memory_limit_mb=1, **change)
    np.testing.assert_array_equal(changed.train.images, plain.train.images)


def test_changed_bytes_are_seen_though_size_and_time_are_kept(load, image_folder):
    file = image_folder / "widget" / "train" / "good" / "3.bmp"
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(file)
    before, stamp = load().train.images.copy(), file.stat()
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    after = load().train.images
    assert np.any(after != before)
    np.testing.assert_array_equal(after, load(memory_limit_mb=1).train.images)


def test_renamed_file_is_seen(load, image_folder):
    folder = image_folder / "widget" / "train" / "good"
    load()
    (folder / "0.png").rename(folder / "9.png")
    np.testing.assert_array_equal(load().train.images, load(memory_limit_mb=1).train.images)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", None], ids=["empty", "cut", "half"])
def test_damaged_entry_is_rebuilt(load, tmp_path, content):
    before = load().train.images.copy()
    for entry in (tmp_path / "cache").iterdir():
        whole = entry.read_bytes()
        entry.write_bytes(whole[: len(whole) // 2] if content is None else content)
    np.testing.assert_array_equal(load().train.images, before)


def test_killed_build_is_not_taken_for_a_finished_one(load, image_folder, tmp_path):
    cache = tmp_path / "cache"
    child = run_child(image_folder, cache, slow_after=3)
    assert child.stdout.readline() == "decoding\n"
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()
    assert [path.name[:10] for path in cache.iterdir()] == [".building-"]
    np.testing.assert_array_equal(load().train.images, load(memory_limit_mb=1).train.images)
    assert len(list(cache.glob("*.npy"))) == 2


def test_processes_share_a_cache(load, image_folder, tmp_path):
    children = [run_child(image_folder, tmp_path / "cache") for _ in range(2)]
    found = {int(child.communicate(timeout=120)[0]) for child in children}
    assert [child.returncode for child in children] == [0, 0]
    assert found == {int(load(memory_limit_mb=1).train.images.astype(int).sum())}
    assert len(list((tmp_path / "cache").iterdir())) == 2
    # One that comes later decodes nothing.
    assert int(run_child(image_folder, tmp_path / "cache", 0).communicate()[0]) in found


def test_failed_build_leaves_nothing(load, image_folder, tmp_path):
    (image_folder / "widget" / "train" / "good" / "4.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"4\.png: is not a whole image file"):
        load()
    assert list((tmp_path / "cache").iterdir()) == []


def test_leftovers_go_after_a_day(load, tmp_path):
    cache = tmp_path / "cache"
    old, new = cache / ".building-old", cache / ".building-new"
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "images.npy").write_bytes(b"x")
    long_ago = time.time() - 2 * 24 * 3600
    for path in (old / "images.npy", old):
        os.utime(path, (long_ago, long_ago))
    load()
    assert new.exists()
    assert not old.exists()


def test_wrong_shape_is_no_entry(load, tmp_path):
    array = load().train.images
    key = next(
        path.stem
        for path in (tmp_path / "cache").iterdir()
        if np.load(path, mmap_mode="r").shape == array.shape
    )
    assert cache_lib.open_entry(tmp_path / "cache", key, array.shape) is not None
    assert cache_lib.open_entry(tmp_path / "cache", key, (4, *array.shape[1:])) is None


def test_entries_are_read_only(load):
    with pytest.raises(ValueError, match="read-only"):
        load().train.images[0] = 0


def test_cache_dir_wins_over_the_callers(load, tmp_path):
    load(cache_dir=str(tmp_path / "mine"))
    assert len(list((tmp_path / "mine").iterdir())) == 2
    assert not (tmp_path / "cache").exists()


def test_without_a_cache_all_is_in_memory(load):
    assert not isinstance(load(cache=None).train.images, np.memmap)


def test_first_damaged_image_is_named(load, image_folder, tmp_path):
    folder = image_folder / "widget" / "train" / "good"
    for number in (3, 1):
        (folder / f"{number}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1\.png: is empty"):
        load(memory_limit_mb=1)


def test_more_images_than_a_chunk_stay_in_order(monkeypatch, image_folder, load):
    folder = image_folder / "widget" / "train" / "good"
    before = load(memory_limit_mb=1).train.images
    monkeypatch.setattr(encoded, "_CHUNK", 2)
    np.testing.assert_array_equal(load(memory_limit_mb=1).train.images, before)
    shutil.copy(folder / "0.png", folder / "5.png")
    np.testing.assert_array_equal(load(memory_limit_mb=1).train.images[5], before[0])


def test_huge_images_are_refused_from_any_thread(load, image_folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    with pytest.raises(DataError, match="too many pixels"):
        load(memory_limit_mb=1)


def test_what_cannot_fit_into_memory_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    make_category(tmp_path)
    config = config_for(tmp_path)
    monkeypatch.setattr("daad_jax.runtime.memory.available", lambda: 10 * 16 * 16)
    assert len(load_dataset(config, "nut").train) == 10
    for path in (tmp_path / "nut/train/good").iterdir():
        path.write_bytes(b"no image")
    monkeypatch.setattr("daad_jax.runtime.memory.available", lambda: 10 * 16 * 16 - 1)
    with pytest.raises(DataError, match="lower it below 0 to keep them in a cache"):
        load_dataset(config, "nut", tmp_path / "cache")
    with pytest.raises(DataError, match="lower it below 0 and set data.cache_dir to keep them"):
        load_dataset(config, "nut")
    with pytest.raises(DataError, match="^data.memory_limit_mb: 10 decoded images need 0 MiB"):
        load_dataset(config, "nut")
