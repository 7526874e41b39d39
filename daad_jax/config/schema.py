"""The config: typed dataclasses whose fields are each declared once.

The defaults are the setting of the paper for MVTec AD. Where the paper is silent, the choice and
its reason are in ``docs/deviations.md``. Checks that need image shapes, or the names of rules,
data sources, losses and scores, belong to the packages that define those.
"""

# The field types are read at run time, so annotations must not be postponed.

import dataclasses
import os
import re
from dataclasses import dataclass
from typing import Literal

from daad_jax.config.checks import (
    BELOW_ONE,
    ONE_OR_THREE,
    RANGE,
    SCALES,
    WEIGHT,
    above,
    at_least,
    between,
    one_of,
    or_none,
    side,
)
from daad_jax.config.networks import DiscriminatorConfig, MemoryConfig, ModelConfig
from daad_jax.config.section import Section, option
from daad_jax.errors import ConfigError, shown

Size = int | tuple[int, int]
ValueRange = Literal["auto"] | tuple[float, float]

_MAX_IMAGE_SIZE = 8192


@dataclass
class DataConfig(Section):
    """What is trained on and evaluated."""

    source: str = option(
        "folder",
        'where images come from: "textures" (part of scikit-image), "folder" (your own images), '
        '"digits" (part of scikit-learn), "mnist", "cifar10", or "tfds" (a labelled set of '
        "tensorflow-datasets)",
    )
    root: str = option(
        "",
        'source "folder": the folder that holds the categories, or one category\'s own folder if '
        '`data.category` is ""; sources "mnist" and "cifar10": the folder of the original files, '
        'or "" to download them',
    )
    test_root: str = option(
        "", 'source "folder": like `data.root`, for the test images and masks; "" is `data.root`'
    )
    name: str = option("", 'source "tfds": name of the set, such as "fashion_mnist"')
    category: str = option(
        "all",
        'name of a category, or "all" to train each in turn; in labelled sets, the class that '
        "counts as normal, by name or number",
    )
    good: str = option("good", 'source "folder": folders of good pictures, such as "ok,fine"')
    bad: str = option(
        "",
        'source "folder": folders of defective pictures, in the folder "test" or, without one, '
        'beside the good pictures; "" is every folder in "test" that is not good',
    )
    test_fraction: float | None = option(
        None,
        'source "folder": fraction of the good training pictures that is tested on instead, drawn '
        'as the calibration images are; None is 0.2 with `data.bad` and without "test", else 0',
        or_none(BELOW_ONE),
    )
    image_size: Size = option(
        256,
        "size that images are resized to, in pixels: one number for a square, or (height, width)",
        side(between(2, _MAX_IMAGE_SIZE)),
    )
    fit: str = option(
        "stretch",
        'how an image gets this size: "stretch" fills it; "pad" keeps the aspect ratio and pads, '
        "and the padding counts in no loss and no score",
        one_of("stretch", "pad"),
    )
    ignore: str = option(
        "",
        "region of all images that counts in no loss and no score: boxes x,y,width,height in "
        'fractions of the image, such as "0,0,0.25,0.1; 0.9,0.9,0.1,0.1", or a mask file, white '
        "where images are left out",
    )
    tile: Size = option(
        0,
        "size of the tiles that images are cut into for training and scoring, in pixels after "
        "resizing, one number or (height, width); 0 cuts none",
        side(between(0, _MAX_IMAGE_SIZE)),
    )
    tile_overlap: float = option(
        0.25, "smallest share of a tile that its neighbour covers too", between(0, 0.5)
    )
    channels: int = option(
        3,
        "3 repeats the channel of grey images; 1 converts colour images to luminance",
        ONE_OR_THREE,
    )
    resize: str = option(
        "area",
        'resize filter; "area" is the mean of the pixels that a new pixel covers',
        one_of("area", "nearest", "bilinear", "bicubic", "lanczos"),
    )
    brightness: str = option(
        "kept", '"equal" divides every image by its own mean', one_of("kept", "equal")
    )
    value_range: ValueRange = option(
        "auto",
        "values of black and white in files of more than 8 bits per value, such as (0, 4095) for "
        '12 bits in 16-bit files; "auto" takes the range of the type: all bits of integers, 0 to 1 '
        "of floats",
        RANGE,
    )
    flip_horizontal: bool = option(True, "mirror training images left to right at random")
    flip_vertical: bool = option(True, "mirror training images top to bottom at random")
    calibration_fraction: float = option(
        0.0,
        "fraction of the normal training images that is held out (at least two images) to fit "
        'the score scaling and the threshold of `score.protocol` "calibrated"; 0 holds out none. '
        "The textures have a fixed region for it",
        BELOW_ONE,
    )
    calibration_groups: int = option(
        0,
        "0 holds out single images drawn at random; g > 0 divides the images, sorted by name, "
        "into g contiguous groups and holds out whole groups drawn at random: use it when "
        "neighbouring files show the same object",
        at_least(0),
    )
    split_seed: int = option(0, "seed of the draw of held-out images", between(0, 2**32 - 1))
    memory_limit_mb: int = option(
        4096,
        "decoded images of a split that exceed this many MiB are stored in `data.cache_dir` and "
        "memory-mapped",
        at_least(0),
    )
    on_device: str = option(
        "auto",
        "keep a whole copy of the training images in the memory of each device, instead of "
        'copying each batch to it; "auto" does so on a GPU or TPU if they fit beside the train '
        "step. The results are the same",
        one_of("auto", "yes", "no"),
    )
    cache_dir: str = option("", 'folder for decoded images; "" is `cache` in the workdir')
    tfds_dir: str = option(
        "",
        'folder where tensorflow-datasets keeps its sets; "" is its default, '
        "`~/tensorflow_datasets`",
    )
    on_bad_file: str = option(
        "stop",
        'policy for unreadable image and mask files: "stop" ends with an error that names the '
        'file; "skip" leaves the image out and counts it in a warning',
        one_of("stop", "skip"),
    )
    max_bad_files: int = option(
        100, 'the most files of a category that `data.on_bad_file` "skip" leaves out', at_least(0)
    )
    follow_links: bool = option(
        False, 'source "folder": allow symbolic links that lead out of `data.root`'
    )

    @property
    def picture_size(self) -> tuple[int, int]:
        """Height and width of whole images after resizing."""
        return _pair(self.image_size)

    @property
    def network_size(self) -> tuple[int, int]:
        """Height and width that the networks take: those of a tile, or of whole images."""
        return _pair(self.tile) if any(_pair(self.tile)) else self.picture_size

    @property
    def has_validity(self) -> bool:
        """Whether images carry a channel that says which pixels count."""
        return self.fit == "pad" or bool(self.ignore)

    def ignored_boxes(self) -> list[tuple[float, float, float, float]] | None:
        """Returns the boxes of `ignore`, each x, y, width and height; None if it names a file.

        Raises ConfigError if a box does not lie in the image.
        """
        if not re.fullmatch(r"[-\d.,;\s]+", self.ignore):
            return None
        boxes = []
        for text in filter(str.strip, self.ignore.split(";")):
            try:
                x, y, width, height = map(float, text.split(","))
            except ValueError:
                x = y = width = height = -1.0
            if not (0 <= x < x + width <= 1 and 0 <= y < y + height <= 1):
                raise ConfigError(
                    f"data.ignore: {shown(text.strip())} is not x,y,width,height in fractions of "
                    "the image, from 0 to 1; divide pixels by the image's width and height"
                )
            boxes.append((x, y, width, height))
        return boxes

    def located(self) -> "DataConfig":
        """Returns a copy whose folders are absolute. ``~`` becomes the home folder."""
        names = ["root", "test_root", "cache_dir", "tfds_dir"]
        names += ["ignore"] if self.ignored_boxes() is None else []
        given = {name: os.path.expanduser(getattr(self, name)) for name in names}
        found = {name: os.path.abspath(path) for name, path in given.items() if path}
        return dataclasses.replace(self, **found)


@dataclass
class LossConfig(Section):
    """The losses and their weights."""

    rec: float = option(50.0, "lambda_rec, weight of the reconstruction loss", WEIGHT)
    adv: float = option(0.5, "lambda_adv, weight of the adversarial loss; 0 leaves it out", WEIGHT)
    ali: float = option(0.5, "lambda_ali, weight of the alignment loss; 0 leaves it out", WEIGHT)
    extra: str = option(
        "",
        "weights of further losses that `daad_jax/train/losses.py` defines, such as "
        '"l1=0.5, other=1"',
    )
    rec_norm: str = option(
        "norm",
        'L_rec over a batch: the mean over images of the "norm" of the difference, as Eq. 4 is '
        'written, the "mean_squared" difference, or the mean over images of its root',
        one_of("norm", "mean_squared", "root_mean_squared"),
    )
    ali_norm: str = option(
        "norm",
        "the same for L_ali, Eq. 6",
        one_of("norm", "mean_squared", "root_mean_squared"),
    )
    adversarial: str = option(
        "non_saturating",
        "form of the generator's adversarial loss",
        one_of("non_saturating", "saturating"),
    )
    alignment_updates_discriminator: bool = option(
        False, "the alignment loss also trains the discriminator"
    )

    def weights(self) -> dict[str, float]:
        """Returns the weight of each loss: rec, adv and ali, then those of `extra`.

        Raises ConfigError if `extra` is not a list such as "l1=0.5, other=1" of new names with
        finite weights of at least 0. It does not check that the losses exist.
        """
        weights = {"rec": self.rec, "adv": self.adv, "ali": self.ali}
        for entry in self.extra.split(",") if self.extra.strip() else []:
            name, _, number = (part.strip() for part in entry.partition("="))
            try:
                value = float(number)
            except ValueError:
                value = -1.0
            if not name.isidentifier() or not WEIGHT.passes(value):
                raise ConfigError(
                    f"loss.extra: {shown(entry.strip())} is not NAME=WEIGHT with a finite weight "
                    'of at least 0; write for example "l1=0.5, other=1"'
                )
            if name in weights:
                raise ConfigError(f"loss.extra: {name!r} has a weight already; give it once")
            weights[name] = value
        return weights


@dataclass
class TrainConfig(Section):
    """Training."""

    epochs: int | None = option(
        1000, "passes over the training images; used if `train.steps` is None", or_none(at_least(1))
    )
    steps: int | None = option(
        None, "number of updates; replaces `train.epochs`", or_none(at_least(1))
    )
    batch_size: int = option(8, "images per update, over all devices", at_least(1))
    learning_rate: float = option(2e-4, "learning rate of Adam, for both networks", above(0))
    beta1: float = option(0.9, "decay of Adam's mean of gradients", BELOW_ONE)
    beta2: float = option(0.999, "decay of Adam's mean of squared gradients", BELOW_ONE)
    corruption: str = option(
        "none",
        "what is done to the generator's input, from which it restores the clean image: turned by "
        'a multiple of 90 degrees ("rotate"), "grey", with stains ("stain") or with masked cells '
        '("inpaint"). Not in the paper',
        one_of("none", "rotate", "grey", "stain", "inpaint"),
    )
    average_decay: float = option(
        0.0,
        "decay of a running average of both networks' weights; above 0, the average is "
        "evaluated. Not in the paper",
        BELOW_ONE,
    )
    log_every: int = option(10, "steps between lines of metrics", at_least(1))
    checkpoint_every: int = option(
        1000, "steps between checkpoints; the last step always has one", at_least(1)
    )
    keep_checkpoints: int = option(2, "how many of the newest checkpoints are kept", at_least(1))


@dataclass
class ScoreConfig(Section):
    """The anomaly scores and their evaluation."""

    gamma: float = option(0.9, "weight of R(x) in A(x); L(x) has weight 1 - gamma", between(0, 1))
    protocol: str = option(
        "paper",
        "how A(x) scales R(x) and L(x): by their range over the test images, as in the paper, or "
        "by their range over held-out normal images",
        one_of("paper", "calibrated"),
    )
    map_sigma: float = option(
        4.0, "standard deviation of the Gaussian that smooths anomaly maps, in pixels", WEIGHT
    )
    map: str = option(
        "error",
        'map that is shown and measured: pixel "error", the same "relative" to good images, the '
        'discriminator\'s "features", or error and features "fused"',
        one_of("error", "relative", "features", "fused"),
    )
    map_scales: tuple[float, ...] = option(
        (),
        "standard deviations of the smoothed error maps that `score.map` averages, each at least "
        "`score.map_sigma`; () takes `score.map_sigma` alone",
        SCALES,
    )
    map_quantile: float = option(
        0.98, "quantile of an anomaly map that the score R_quantile takes", between(0, 1)
    )
    decision: str = option(
        "A",
        'score that is compared with the threshold: "R", "L", "A" (calibrated), or a localised '
        "score of `daad_jax/scoring/scores.py`; the localised scores are not in the paper",
    )
    threshold_quantile: float = option(
        0.99,
        "the threshold is this quantile of the decision score of the calibration images",
        between(0, 1),
    )
    batch_size: int = option(32, "images per batch when scoring", between(1, 4096))
    bootstrap_samples: int = option(1000, "resamplings behind a bootstrap interval", at_least(1))


@dataclass
class MeshConfig(Section):
    """How devices share the work: a mesh of `data` x `items` devices."""

    data: int = option(
        0,
        "devices along the axis of the batch alone; 0 is the number of all devices divided by "
        "`mesh.items`",
        at_least(0),
    )
    items: int = option(
        1,
        "devices that share each memory bank, along N or, if N is not a multiple, along D; 1 "
        "keeps banks whole on every device",
        at_least(1),
    )
    split_moments: bool = option(
        False,
        "whether Adam's moments are also split over the axis `data`: less memory, more traffic",
    )


@dataclass
class Config(Section):
    """Everything that a run depends on besides its images."""

    setting: str = option(
        "daad_plus", "setting that the config was made from; it changes nothing by itself"
    )
    seed: int = option(
        0,
        "seed of the initial parameters, the order of images, the flips and the bootstrap",
        between(0, 2**32 - 1),
    )
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    memory: MemoryConfig = dataclasses.field(default_factory=MemoryConfig)
    discriminator: DiscriminatorConfig = dataclasses.field(default_factory=DiscriminatorConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    score: ScoreConfig = dataclasses.field(default_factory=ScoreConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)

    @property
    def has_discriminator(self) -> bool:
        """Whether a discriminator is built, so that L(x) exists."""
        return self.loss.adv > 0 or self.loss.ali > 0


def _pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size
