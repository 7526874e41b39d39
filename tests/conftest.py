"""Eight fake CPU devices, and no silent rank promotion, for every test."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

# Tests run many small programs once each: compiling quickly matters, running quickly does not.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",
    ]
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, os.fspath(Path(__file__).parent.parent))

import jax
import numpy as np
import pytest

from daad_jax import config as config_lib
from daad_jax.config import Config
from daad_jax.data.dataset import GOOD, Dataset, ImageSet
from daad_jax.runtime import sharding

jax.config.update("jax_numpy_rank_promotion", "raise")


COMPILED = "JAX_COMPILATION_CACHE_DIR"


def pytest_configure(config: pytest.Config) -> None:
    """Shares compiled programs between tests, workers and child processes."""
    if COMPILED in os.environ:  # Workers of pytest-xdist inherit it.
        return
    folder = tempfile.mkdtemp(prefix="daad_jax-tests-")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    for name, value in [
        (COMPILED, folder),
        ("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", 0),
        ("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", -1),
    ]:
        os.environ[name] = str(value)
        jax.config.update(name.lower(), value)


def tiny_config(setting: str = "daad_plus", **overrides: object) -> Config:
    """A config that trains within a second: 16 px, two stages, eight items."""
    config = config_lib.from_setting(setting)
    values = {
        "data.source": "textures",
        "data.image_size": 16,
        "data.channels": 1,
        "model.widths": (4, 8),
        "memory.items": 8,
        "memory.temperature": 0.5,
        "discriminator.width": 4,
        "discriminator.max_width": 8,
        "train.steps": 6,
        "train.batch_size": 8,
        "train.log_every": 1,
        "train.checkpoint_every": 100,
        "score.map_sigma": 1.0,
        "score.batch_size": 8,
        "score.bootstrap_samples": 20,
    }
    if config.memory.division_rates != "pixel":
        values["memory.division_rates"] = (2, 2, 1)
    values |= {name.replace("__", "."): value for name, value in overrides.items()}
    for name, value in values.items():
        config_lib.set_field(config, name, value)
    return config


def tiny_dataset(config: Config, seed: int = 0) -> Dataset:
    """Smooth random images; the defective ones have a bright square. Reads no file."""
    rng = np.random.default_rng(seed)
    (height, width), channels = config.data.picture_size, config.data.channels

    def images(count: int) -> np.ndarray:
        coarse = rng.integers(40, 200, (count, height // 4, width // 4, channels), dtype=np.uint8)
        return coarse.repeat(4, axis=1).repeat(4, axis=2)

    train, calibration, test = images(24), images(8), images(20)
    masks = np.zeros((20, height, width), dtype=bool)
    masks[10:, 2:6, 2:6] = True
    test[masks] = 255

    def image_set(pixels: np.ndarray, kinds: list[str], masks: np.ndarray | None) -> ImageSet:
        names = [f"{kind}/{index}" for index, kind in enumerate(kinds)]
        return ImageSet(pixels, names, kinds, masks)

    return Dataset(
        "tiny",
        image_set(train, [GOOD] * 24, None),
        image_set(test, [GOOD] * 10 + ["square"] * 10, masks),
        image_set(calibration, [GOOD] * 8, None),
    )


@pytest.fixture
def one_device() -> jax.sharding.Mesh:
    """A mesh of one device."""
    return sharding.make_mesh(jax.devices()[:1])
