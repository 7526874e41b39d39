"""The settings to train with on a folder of images, each with its reason."""

from typing import Any, NamedTuple

import numpy as np

from daad_jax.config import Config
from daad_jax.data import ImageSet, look
from daad_jax.data.survey import Survey
from daad_jax.evaluation.lighting import Pairs, apart

_SIZES = (64, 128, 256)  # that the preset `folder` can be trained at
_PIXELS = 3  # width at which a defect can be seen after resizing
_VARIES = 1.5  # ratio of bright to dark good pictures
_GREY = 1.0  # mean difference of the channels of a grey picture, of 255


class Choice(NamedTuple):
    """A field of the section ``data`` of the config, its value, and why."""

    field: str
    value: Any
    reason: str


def choose(survey: Survey, config: Config, by_label: Pairs, by_split: Pairs) -> list[Choice]:
    """Chooses the settings. The tables are those of `daad_jax.evaluation.lighting.lighting`."""
    choices = [
        _image_size(survey),
        _channels(survey),
        _brightness(survey.dataset.train, by_label, by_split),
    ]
    choices += _value_range(survey, config)
    if broken := len(survey.broken):
        choices.append(
            Choice("on_bad_file", "skip", f"leaves out the {broken} file(s) that cannot be used")
        )
        if broken > config.data.max_bad_files:
            choices.append(Choice("max_bad_files", broken, "permits as many"))
    if set(survey.dataset.test.labels.tolist()) == {1}:
        choices.append(
            Choice("test_fraction", 0.2, "tests a fifth of the good pictures beside the bad ones")
        )
    return choices


def _image_size(survey: Survey) -> Choice:
    short = int(np.median([min(header.size) for header in survey.headers.values()]))
    usable = [size for size in _SIZES if size <= max(short, _SIZES[0])]
    if len(survey.defects):
        share = float(np.sqrt(np.quantile(survey.defects, 0.1)))
        fitting = [size for size in usable if size * share >= _PIXELS]
        size = (fitting or usable[-1:])[0]
        reason = (
            f"the smallest tenth of the defects in the masks is up to {100 * share:.2g} % of a "
            f"picture wide, {size * share:.1f} pixels at this size"
        )
    else:
        size = usable[0]
        reason = (
            f"there are no masks to say how small defects are; at this size a defect is seen from "
            f"about {100 * _PIXELS / size:.2g} % of the picture's width on"
        )
        if len(usable) > 1:
            reason += f". {usable[1]} shows smaller ones and takes about four times as long"
    if short < size:
        reason += f". The pictures are smaller ({short} pixels)"
    return Choice("image_size", size, reason)


def _channels(survey: Survey) -> Choice:
    parts = survey.dataset.train, survey.dataset.test
    coloured = sum(
        float(np.ptp(image.astype(np.int16), axis=-1).mean()) >= _GREY
        for part in parts
        for image in part.images
    )
    count = sum(map(len, parts))
    if coloured:
        return Choice("channels", 3, f"{coloured} of {count} pictures have colours")
    return Choice("channels", 1, "all pictures are grey")


def _brightness(train: ImageSet, by_label: Pairs, by_split: Pairs) -> Choice:
    if by_label and apart(by_label["mean"][0]):
        which = "good from defective pictures"
    elif by_split and apart(by_split["mean"][0]):
        which = "good test pictures from those to train on"
    else:
        low, high = np.quantile([float(image.mean()) for image in train.images], [0.05, 0.95])
        reason = f"good pictures have a mean brightness of {low:.0f} to {high:.0f} of 255"
        if by_split:
            reason += ", and it alone does not tell groups of pictures apart"
        if high > _VARIES * low:
            reason += (
                '. If no defect of yours changes the brightness of a picture, try "equal", which '
                "takes this variation out"
            )
        return Choice("brightness", "kept", reason)
    reason = (
        f"lighting alone tells {which}; this divides each picture by its mean. Leave it out if "
        "your defects change the brightness of a picture"
    )
    return Choice("brightness", "equal", reason)


def _value_range(survey: Survey, config: Config) -> list[Choice]:
    what, high = look.narrow_range(survey.dataset.train.images)
    wide = {header.bits for header in survey.headers.values()} == {16}
    if not what or not wide or config.data.value_range != "auto":
        return []
    bits = high.bit_length() + 8
    reason = f"the files have 16 bits, of which the pictures use {bits}"
    return [Choice("value_range", (0, 2**bits - 1), reason)]
