"""The page of ``check``: whether a folder of images is fit to train on."""

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

from daad_jax.data.survey import Survey
from daad_jax.evaluation.fitness import BUT, NOTE, STOP, Fitness, blank_pictures
from daad_jax.reports import page, plots
from daad_jax.reports.page import Html, element

_MODES = {"1": "black and white", "L": "grey", "LA": "grey with opacity", "P": "palette"}
_MODES |= {"RGBA": "RGB with opacity"}
_MOST_SHOWN = 12  # pictures of a kind
_MOST_KINDS = 24

Show = Callable[[str], np.ndarray | None]


def check_page(survey: Survey, fitness: Fitness, command: str, show: Show) -> str:
    """Renders the page, which needs no other file.

    `command` is the command to train with, "" if the folder is not fit. `show` returns a picture by
    its name, uint8 ``(H, W, 3)``, or None if there is none.
    """
    name = survey.dataset.category
    body = [
        _headline(survey, fitness),
        _command(fitness, command),
        _notes(fitness),
        _pictures(survey, fitness),
        _broken(survey),
        _lighting(survey, fitness),
        _sheet(survey, fitness, show),
    ]
    return page.document(f"{name} · check", [part for part in body if part])


def kind_rows(survey: Survey, fitness: Fitness) -> list[list[str]]:
    """Cells of a table: a header, and a row for the good pictures and each kind of test picture."""
    rows = [["pictures", "number", "size", "colours", "bits", "brightness"]]
    for kind, names in _groups(survey).items():
        headers = [survey.headers[name] for name in names]
        sizes = _frequent("{} x {}".format(*header.size) for header in headers)
        modes = _frequent(_MODES.get(header.mode, header.mode) for header in headers)
        bits = _frequent(str(header.bits) for header in headers)
        values = [fitness.means[name] for name in names]
        low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
        light = f"{middle:.0f} ({low:.0f} to {high:.0f})"
        rows.append([kind, f"{len(names):,}", sizes, modes, bits, light])
    return rows


def _headline(survey: Survey, fitness: Fitness) -> Html:
    labels = survey.dataset.test.labels
    good, defective = int(np.sum(labels == 0)), int(np.sum(labels == 1))
    held = f"{survey.calibration} of them held out for the threshold" if survey.calibration else ""
    numbers = page.numbers(
        ("good, to train on", f"{len(survey.dataset.train):,}", held),
        ("test pictures", f"{good + defective:,}", f"{good} good, {defective} defective"),
        ("files that cannot be used", f"{len(survey.broken):,}", ""),
        ("pictures not used", f"{sum(survey.unused.values()):,}", "in other folders"),
    )
    title = element("h1", survey.dataset.category)
    reasons = fitness.of(STOP) or fitness.of(BUT)
    word = "Not fit:" if not fitness.is_fit else "Fit, but" if reasons else "Fit to train on."
    verdict = element("p", element("b", word), class_="verdict")
    return page.join([title, verdict, *([_list(reasons)] if reasons else []), numbers])


def _command(fitness: Fitness, command: str) -> Html:
    if not command:
        return Html("")
    reasons = [_marked(f"data.{one.field}={one.value}:", one.reason) for one in fitness.choices]
    words = [element("span", word) for word in command.split(" ")]  # lines break between words
    return page.section("Train with", element("pre", Html(" ".join(words))), _list(reasons))


def _notes(fitness: Fitness) -> Html:
    other = fitness.of(NOTE) + (fitness.of(BUT) if not fitness.is_fit else [])
    return page.section("Good to know", _list(other)) if other else Html("")


def _pictures(survey: Survey, fitness: Fitness) -> Html:
    header, *rows = kind_rows(survey, fitness)
    note = (
        "Size is width x height in pixels. Brightness is the mean of a picture's pixels, from 0 to "
        "255: the median picture, and in brackets the range without the darkest and the brightest "
        "twentieth."
    )
    parts = [page.table(header, rows), page.note(note)]
    if survey.unused:
        used = [f"{folder}: {count} pictures" for folder, count in survey.unused.items()]
        parts += [element("h3", "Folders that are not used"), _list(used)]
    return page.section("Pictures", *parts)


def _broken(survey: Survey) -> Html:
    repeated = survey.dataset.duplicates
    parts: list[Html] = []
    if survey.broken:
        lines = [_marked(error.place, error.reason) for error in survey.broken]
        parts += [element("h3", "Files that cannot be used"), _list(lines)]
    told = {
        "Test pictures that are training pictures, too": repeated.in_training,
        "Pictures that are there as good and as defective": repeated.under_both_labels,
    }
    for title, pairs in told.items():
        if pairs:
            parts += [element("h3", title), _list(" = ".join(pair) for pair in pairs)]
    return page.section("Files", *parts) if parts else Html("")


def _marked(word: str, text: str) -> Html:
    return page.join([element("b", word), page.escape(text)])


def _lighting(survey: Survey, fitness: Fitness) -> Html:
    train, test = survey.dataset.train, survey.dataset.test
    kinds = {
        "train": train.names,
        "good test": [n for n, label in zip(test.names, test.labels, strict=True) if not label],
        "defective": [n for n, label in zip(test.names, test.labels, strict=True) if label],
    }
    values = {
        kind: np.array([fitness.means[name] for name in names])
        for kind, names in kinds.items()
        if names
    }
    if not values:
        return Html("")
    figure = plots.histogram(values, name="mean brightness of a picture")
    parts = [page.plot(figure, "Brightness of the pictures, each kind as shares of its pictures.")]
    tables = {
        "Defective against good test pictures": fitness.by_label,
        "Good test pictures against those to train on": fitness.by_split,
    }
    for title, pairs in tables.items():
        if pairs:
            rows = [[name, f"{kept:.3f}", f"{equal:.3f}"] for name, (kept, equal) in pairs.items()]
            header = ["AUROC", "as they are", "brightness equal"]
            parts += [element("h3", title), page.table(header, rows)]
    note = (
        "AUROC of simple statistics, without any training: 0.5 tells nothing apart, 0 and 1 tell "
        "everything apart. mean, std and gradient are those of the pixels, pca is the error of a "
        "reconstruction from 32 principal components of the good pictures."
    )
    if len(parts) > 1:
        parts.append(page.note(note))
    return page.section("Lighting", page.group("columns", parts[:1]), *parts[1:])


def _sheet(survey: Survey, fitness: Fitness, show: Show) -> Html:
    blank = blank_pictures(survey)
    chosen = {
        "The good pictures that are least like the others": [
            name for name in fitness.unusual if name not in blank
        ],
        "Pictures with one value": blank[:_MOST_SHOWN],
    }
    kinds = _groups(survey)
    for kind, names in list(kinds.items())[:_MOST_KINDS]:
        places = np.linspace(0, len(names) - 1, min(len(names), _MOST_SHOWN)).astype(int)
        chosen[f"{kind[:1].upper()}{kind[1:]}"] = [names[at] for at in places]
    note = (
        "Look at the first row: what is among the good pictures is learnt as normal, a defect too. "
        "Of each kind, evenly spaced pictures in the order of their names are shown."
    )
    parts = [page.note(note)]
    for title, names in chosen.items():
        figures = [_figure(name, pixels) for name in names if (pixels := show(name)) is not None]
        if figures:
            parts += [element("h3", title), page.group("sheet", figures)]
    if len(kinds) > _MOST_KINDS:
        parts.append(page.note(f"The first {_MOST_KINDS} of {len(kinds)} kinds are shown."))
    return page.section("Look at them", *parts)


def _figure(name: str, pixels: np.ndarray) -> Html:
    return element("figure", page.image(pixels, name), element("figcaption", name))


def _groups(survey: Survey) -> dict[str, list[str]]:
    """The names of the pictures: good ones to train on, then test pictures by kind."""
    found = {"good, to train on": list(survey.dataset.train.names)}
    test = survey.dataset.test
    for name, kind in zip(test.names, test.kinds, strict=True):
        found.setdefault(f"{kind}, test", []).append(name)
    return {kind: names for kind, names in found.items() if names}


def _frequent(values: Iterable[str]) -> str:
    counts = Counter(values).most_common()
    more = f" and {len(counts) - 2} more" if len(counts) > 2 else ""
    return ", ".join(value for value, _ in counts[:2]) + more


def _list(lines: Iterable[object]) -> Html:
    return element("ul", *(element("li", line) for line in lines))
