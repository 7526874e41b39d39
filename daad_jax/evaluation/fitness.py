"""Whether a folder of images is fit to train on, why, and with which settings."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from daad_jax.config import Config
from daad_jax.data import look
from daad_jax.data.survey import Survey
from daad_jax.evaluation.choices import Choice, choose
from daad_jax.evaluation.lighting import CONTROLS, Pairs, apart, lighting, unusual_pictures

STOP, BUT, NOTE = "stop", "but", "note"
_FEWEST, _FEW = 10, 50  # good pictures to train on
_NAMED = 3


class Finding(NamedTuple):
    """One sentence about a folder. `level` is "stop" (not fit), "but" (fit, but) or "note"."""

    level: str
    text: str


class Fitness(NamedTuple):
    """The result of `judge`.

    Attributes:
        findings: what there is to say, the gravest first.
        choices: the settings to train with.
        means: the mean of each picture, 0 to 255, by its name.
        by_label: AUROC of each control for defective against good test pictures, as the pictures
            are and with equal brightness; empty without both.
        by_split: the same for good test pictures against those to train on.
        unusual: the names of the good pictures that are least like the others, first the least.
    """

    findings: list[Finding]
    choices: list[Choice]
    means: dict[str, float]
    by_label: Pairs
    by_split: Pairs
    unusual: list[str]

    @property
    def is_fit(self) -> bool:
        """Whether the folder can be trained on."""
        return not self.of(STOP)

    def of(self, level: str) -> list[str]:
        """Returns the texts of the findings of a level."""
        return [one.text for one in self.findings if one.level == level]

    @property
    def verdict(self) -> str:
        """Begins with "fit", "fit, but" or "not fit:"."""
        if not self.is_fit:
            return f"not fit: {'; '.join(self.of(STOP))}"
        return f"fit, but {'; '.join(self.of(BUT))}" if self.of(BUT) else "fit"


def judge(survey: Survey, config: Config) -> Fitness:
    """Judges what `survey` found in a folder. `config` is what would be trained without advice."""
    train, test = survey.dataset.train, survey.dataset.test
    means = {
        name: float(image.mean())
        for part in (train, test)
        for name, image in zip(part.names, part.images, strict=True)
    }
    by_label, by_split = lighting(train, test)
    findings = [
        *_counts(survey),
        *_files(survey),
        *_repeated(survey),
        *_pixels(survey, means),
        *_forms(survey),
        *_light(by_label, by_split),
    ]
    order = (STOP, BUT, NOTE)
    findings.sort(key=lambda one: order.index(one.level))
    choices = choose(survey, config, by_label, by_split) if len(train) else []
    return Fitness(findings, choices, means, by_label, by_split, unusual_pictures(train))


def _counts(survey: Survey) -> Iterator[Finding]:
    count, labels = len(survey.dataset.train), survey.dataset.test.labels
    if count < _FEWEST:
        yield Finding(
            STOP, f"{count} usable good pictures to train on; add more, {_FEWEST} at least"
        )
    elif count < _FEW:
        yield Finding(
            BUT,
            f"{count} good pictures are few to train on; {_FEW} or more show what varies",
        )
    if held := survey.calibration:
        yield Finding(
            NOTE,
            f"{held} good pictures are held out for the threshold; they cannot promise a rate of "
            f"false alarms below {100 / (held + 1):.2g} %",
        )
    good, defective = int((labels == 0).sum()), int((labels == 1).sum())
    if defective and not good:
        yield Finding(
            BUT,
            f"{defective} defective test pictures and no good ones; test some good ones by "
            "--config.data.test_fraction=0.2, or the detection cannot be measured",
        )
    elif not defective:
        yield Finding(
            NOTE,
            "there are no defective test pictures; artificial defects stand in for them in the "
            "report of the training",
        )
    elif not survey.has_masks:
        yield Finding(NOTE, "there are no masks, so where a defect is found cannot be measured")


def _files(survey: Survey) -> Iterator[Finding]:
    if survey.broken:
        first = survey.broken[0]
        yield Finding(
            BUT,
            f"{len(survey.broken)} file(s) cannot be used, {_base(first.place)} for example, which "
            f"{first.reason}",
        )
    if survey.unused:
        names = list(survey.unused)
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        yield Finding(
            BUT,
            f"{sum(survey.unused.values())} picture(s) are not used, in "
            f"{', '.join(names[:_NAMED])}{more}; move them, or name folders with data.good and "
            "data.bad",
        )
    for sentence, places in sorted(survey.notes.items()):
        yield Finding(NOTE, f"{sentence.format(len(places))}, {_base(min(places))} for example")


def _repeated(survey: Survey) -> Iterator[Finding]:
    train, (in_training, under_both) = survey.dataset.train, survey.dataset.duplicates
    told = {
        "{} test picture(s) are training pictures, too": in_training,
        "{} test picture(s) are there as good and as defective": under_both,
    }
    for sentence, pairs in told.items():
        if pairs:
            which = " and ".join(pairs[0])
            yield Finding(
                BUT, f"{sentence.format(len(pairs))}, {which} for example; remove one of the two"
            )
    different = len({hash(image.tobytes()) for image in train.images})
    if different == 1 < len(train):
        yield Finding(STOP, "all good pictures are the same; add others")
    elif different < len(train):
        yield Finding(NOTE, f"{len(train) - different} good picture(s) are there more than once")


def _pixels(survey: Survey, means: dict[str, float]) -> Iterator[Finding]:
    train = survey.dataset.train
    blank = blank_pictures(survey)
    what, _ = look.narrow_range(train.images)
    if what:
        yield Finding(BUT, f"the good pictures {what}; expose them longer, or set data.value_range")
    if blank:
        yield Finding(
            BUT,
            f"{len(blank)} picture(s) have one value in all pixels, {blank[0]} for example; remove "
            "or replace them",
        )
    rest = [name for name in train.names if name not in set(blank)]
    if far := look.far_from_others([means[name] for name in rest]):
        yield Finding(
            BUT,
            f"{len(far)} good picture(s) are much darker or brighter than the others, "
            f"{rest[far[0]]} for example; remove or replace them",
        )


def blank_pictures(survey: Survey) -> list[str]:
    """The names of the pictures with one value in all pixels."""
    parts = (survey.dataset.train, survey.dataset.test)
    return [
        name
        for part in parts
        for name, image in zip(part.names, part.images, strict=True)
        if look.is_blank(image)
    ]


def _forms(survey: Survey) -> Iterator[Finding]:
    sizes = Counter(header.size for header in survey.headers.values())
    ratios = [width / height for width, height in sizes]
    if ratios and max(ratios) > 1.05 * min(ratios):
        (small, large) = (sorted(sizes)[at] for at in (0, -1))
        yield Finding(
            BUT,
            f"pictures have different shapes, from {small[0]} x {small[1]} to {large[0]} x "
            f"{large[1]} pixels, and are stretched to one; crop them alike",
        )
    elif len(sizes) > 1:
        yield Finding(NOTE, f"pictures have {len(sizes)} sizes; they are resized to one")
    bits = Counter(header.bits for header in survey.headers.values())
    if len({number > 8 for number in bits}) > 1:
        shown = ", ".join(f"{count} of {number} bits" for number, count in bits.most_common())
        yield Finding(BUT, f"bit depths are mixed ({shown}); save all pictures alike")


def _light(by_label: Pairs, by_split: Pairs) -> Iterator[Finding]:
    if by_split and apart(by_split["mean"][0]):
        yield Finding(
            BUT,
            "the good test pictures have other light than the good training pictures (AUROC of the "
            f"mean brightness {by_split['mean'][0]:.2f}); take all under the same light",
        )
    if not by_label:
        return
    value, equal = by_label["mean"]
    if apart(value):
        rest = "removes that" if not apart(equal) else f"leaves {equal:.2f}"
        yield Finding(
            BUT,
            f"lighting alone separates good from defective pictures (AUROC of the mean brightness "
            f"{value:.2f}), so a score may find the light and not the defect; take both under the "
            f"same light, or divide it out: data.brightness=equal {rest}",
        )
    elif others := [name for name in CONTROLS if apart(by_label[name][0])]:
        yield Finding(
            NOTE,
            f"{' and '.join(others)} of the pixels alone separate good from defective pictures; "
            "compare the trained model with that",
        )


def _base(place: str) -> str:
    return "/".join(place.split("/")[-2:])
