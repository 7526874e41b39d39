"""The pages of Tables 1 to 5: the paper's numbers beside ours."""

from collections.abc import Sequence

from daad_jax.data.sources.layout import PAPER_CATEGORIES
from daad_jax.reports.document import Block, Items, Table
from daad_jax.reproduction import paper
from daad_jax.reproduction.items import ITEMS, Subject
from daad_jax.reproduction.results import (
    Results,
    Values,
    complete,
    difference,
    mean,
    mean_over,
    shown,
    verdict,
)
from daad_jax.reproduction.scales import CIFAR10, DEFAULT, MNIST, RATES, TITLES

_CONTROLS = {"pca": "PCA", "mean": "mean brightness", "untrained": "untrained D"}
_CONFOUNDED = 0.95
CATEGORIES, CLASSES = "of 15 categories", "of 10 classes"
_Line = tuple[str, str, str, str | None]
"""A row of Table 4 or 5: its label, model, score and printed number."""


def table1(results: Results, subjects: Sequence[Subject]) -> list[Block]:
    """DAAD+ on each category with its controls, and the methods that the paper quotes."""
    header = ["category", "paper", "ours", "difference", "verdict", TITLES[DEFAULT]]
    rows = []
    for subject in subjects:
        values = results.values(subject, "daad_plus")
        printed = paper.table3(subject.category, "daad_plus")
        cells = [_name(results, subject), printed or "", _ours(results, subject, values)]
        cells += [difference(values, printed), _verdict(results, subject, values, printed)]
        rows.append([*cells, *_beside(results, subject)])
    rows.append(_mean_row(results, subjects, paper.table3(paper.MEAN, "daad_plus")))
    quoted = paper.numbers()["table1"]
    methods = quoted["methods"]
    quotes = [
        [column, *(one["values"][place] or "" for one in methods.values())]
        for place, column in enumerate(quoted["columns"])
    ]
    quotes.insert(0, ["based on", *(one["kind"] for one in methods.values())])
    notes = [f"{name}: {one['note']}." for name, one in methods.items() if "note" in one]
    return [
        Table([*header, *_control_titles()], rows),
        *brightness(results, subjects),
        "The rivals, and DAAD+ as Ours, as the paper quotes them:",
        Table(["category", *methods], quotes),
        Items(notes),
    ]


def table2(results: Results, subjects: Sequence[Subject]) -> list[Block]:
    """DAAD+ on each class of MNIST and CIFAR-10, whose means the paper prints."""
    header = ["normal class", "paper", "ours", "difference", "verdict", TITLES[DEFAULT]]
    rows = []
    for images in (MNIST, CIFAR10):
        own = [one for one in subjects if one.images == images]
        for subject in own:
            ours = _ours(results, subject, results.values(subject, "daad_plus"))
            cells = [f"{images}: {subject.category}", "", ours, "", ""]
            rows.append([*cells, *_beside(results, subject)])
        rows.append(_mean_row(results, own, paper.table2(images), f"{images}: mean", CLASSES))
    quoted = paper.numbers()["table2"]
    notes = quoted["notes"]
    quotes = [
        [f"{name} (see below)" if name in notes else name, *(value or "" for value in values)]
        for name, values in quoted["methods"].items()
    ]
    return [
        "Protocol 2 of OCGAN: trained on the training images of one class, tested on the whole "
        "test split, where the nine other classes are abnormal. The paper prints the means only.",
        Table([*header, *_control_titles()], rows),
        "The rivals, and DAAD+ as Ours, as the paper quotes them:",
        Table(["method", "MNIST", "CIFAR-10"], quotes),
        Items([f"{name}: {note}." for name, note in notes.items()]),
    ]


def table3(results: Results, subjects: Sequence[Subject]) -> list[Block]:
    """The five settings of the table and MemAE+Skip of Figure 2, category by category."""
    models = ITEMS["table3"].models
    rows = []
    for subject in subjects:
        row = [_name(results, subject)]
        for model in models:
            values = results.values(subject, model)
            printed = paper.table3(subject.category, model)
            row.append(_compared(_ours(results, subject, values), values, printed))
        rows.append([*row, *_control_cells(results, subject)])
    means = [_mean_cell(results, subjects, model) for model in models]
    rows.append(["mean", *means, *([""] * len(_CONTROLS))])
    return [
        "Each cell has ours, the paper's number, and our difference to it with the verdict.",
        Table(["category", *(TITLES[model] for model in models), *_CONTROLS.values()], rows),
        *brightness(results, subjects),
    ]


def table4(results: Results, subjects: Sequence[Subject]) -> list[Block]:
    """DAAD at each division rate, and the same network without a memory."""
    printed = paper.numbers()["table4"]
    lines: list[_Line] = [(str(rate), f"daad_r{rate}", "R", printed[str(rate)]) for rate in RATES]
    lines.append(("no memory", "no_memory", "R", None))
    return _by_subject(results, subjects, lines, "r_h and r_w", "daad_r8")


def table5(results: Results, subjects: Sequence[Subject]) -> list[Block]:
    """Losses, scores and generators. Rows with the same losses share one training."""
    lines: list[_Line] = []
    for one in paper.numbers()["table5"]:
        name = "_".join([one["generator"], *one["losses"][1:]])
        model = "daad_plus" if name == "daad_adv_ali" else name
        losses = " + ".join(f"L_{loss}" for loss in one["losses"])
        label = f"{TITLES[one['generator']]}, {losses}, {' and '.join(one['scores'])}"
        score = "A" if len(one["scores"]) == 2 else one["scores"][0]
        lines.append((label, model, score, one["auroc"]))
    return _by_subject(results, subjects, lines, "generator, losses, score", "daad_plus")


def _by_subject(
    results: Results, subjects: Sequence[Subject], lines: Sequence[_Line], title: str, shared: str
) -> list[Block]:
    """A row per model and score, and a column per category that is at hand.

    Our mean is over the categories that have every row. The controls are those of the model
    `shared`.
    """
    present = [one for one in subjects if results.plans(one)]
    each = [[results.values(one, *line[1:3]) for line in lines] for one in present]
    whole = complete(each)
    done = [one for one, values in zip(present, each, strict=True) if all(values)]
    missing = len({*PAPER_CATEGORIES} - {one.category for one in done})
    rows = []
    for place, (label, _, _, printed) in enumerate(lines):
        ours = mean_over([values[place] for values in whole])
        gap = "" if missing else difference(ours, printed)
        compared = verdict(ours, printed, missing, CATEGORIES)
        cells = [shown(values[place]) for values in each]
        rows.append([label, printed or "", *cells, shown(ours), gap, compared])
    for control, named in _CONTROLS.items():
        cells = [_control(results, one, shared, control) for one in present]
        rows.append([named, "", *cells, "", "", "control"])
    columns = [one.category for one in present]
    header = [title, "paper, mean of 15", *columns, "our mean", "difference", "verdict"]
    absent = ", ".join(f"`{one.category}`" for one in subjects if one not in present)
    texts: list[Block] = [f"Missing, because not on disk: {absent}."] if absent else []
    names = ", ".join(one.category for one in done) or "no category yet"
    texts.append(f"Our mean is over the categories that have every row: {names}.")
    return [*texts, Table(header, rows), *brightness(results, present)]


def _mean_row(
    results: Results,
    subjects: Sequence[Subject],
    printed: str | None,
    label: str = "mean",
    of: str = CATEGORIES,
) -> list[str]:
    """The last row of Table 1 or of a set of Table 2."""
    ours, missing = _mean(results, subjects, "daad_plus", of)
    gap = "" if missing else difference(ours, printed)
    beside = [_partial(*_mean(results, subjects, model, of), of) for model in (DEFAULT, "ae")]
    own = _own(subjects, of)
    found = {name: [_controls(results, one, name) for one in own] for name in _CONTROLS}
    means = [mean_over([values for values in each if values]) for each in found.values()]
    controls = [f"{mean(values):.3f}" if values else "" for values in means]
    cells = [label, printed or "", shown(ours), gap, verdict(ours, printed, missing, of)]
    return [*cells, beside[0], *controls, beside[1]]


def _partial(values: Values, missing: int, of: str) -> str:
    """A mean, with how many parts it is over if some are missing."""
    return f"{shown(values)}\n{missing} {of} missing" if values and missing else shown(values)


def _mean_cell(results: Results, subjects: Sequence[Subject], model: str) -> str:
    ours, missing = _mean(results, subjects, model, CATEGORIES)
    printed = paper.table3(paper.MEAN, model)
    return _compared(shown(ours), ours, printed, missing)


def _compared(text: str, values: Values, printed: str | None, missing: int = 0) -> str:
    """A cell of Table 3."""
    lines = [text] if text else []
    lines += [f"paper {printed}"] if printed else []
    if printed and (values or missing):
        gap = "" if missing else f"{difference(values, printed)} "
        lines.append(f"{gap}{verdict(values, printed, missing, CATEGORIES)}")
    return "\n".join(lines)


def _mean(
    results: Results, subjects: Sequence[Subject], model: str, of: str
) -> tuple[dict[int, float], int]:
    """Our mean over the subjects that the paper has too, and how many of them are missing."""
    total = len(PAPER_CATEGORIES) if of == CATEGORIES else 10
    found = [values for one in _own(subjects, of) if (values := results.values(one, model))]
    return mean_over(found), total - len(found)


def _own(subjects: Sequence[Subject], of: str) -> list[Subject]:
    """The subjects that the paper has too."""
    return [one for one in subjects if of != CATEGORIES or one.category in PAPER_CATEGORIES]


def _name(results: Results, subject: Subject) -> str:
    return subject.category if results.plans(subject) else f"{subject.category}\nnot on disk"


def _ours(results: Results, subject: Subject, values: Values) -> str:
    return shown(values) if results.plans(subject) else ""


def _verdict(results: Results, subject: Subject, values: Values, printed: str | None) -> str:
    return verdict(values, printed) if results.plans(subject) else "missing"


def _control_titles() -> list[str]:
    return [*_CONTROLS.values(), "AE, no memory"]


def _beside(results: Results, subject: Subject) -> list[str]:
    """The cells of the package's default, the controls, and AE."""
    if not results.plans(subject):
        return [""] * (len(_CONTROLS) + 2)
    ours = [shown(results.values(subject, model)) for model in (DEFAULT, "ae")]
    return [ours[0], *_control_cells(results, subject), ours[1]]


def _control_cells(results: Results, subject: Subject) -> list[str]:
    return [_control(results, subject, "daad_plus", name) for name in _CONTROLS]


def _control(results: Results, subject: Subject, model: str, name: str) -> str:
    values = _controls(results, subject, name, model)
    return f"{mean(values):.3f}" if values else ""


def _controls(
    results: Results, subject: Subject, name: str, model: str = "daad_plus"
) -> dict[int, float]:
    """A control by seed. Only that of an untrained discriminator depends on the model."""
    others = [] if name == "untrained" else [one for of, one, _ in results.lines if of == subject]
    found = (results.controls(subject, one, name) for one in [model, *others])
    return next((values for values in found if values), {})


def brightness(results: Results, subjects: Sequence[Subject]) -> list[Block]:
    """A warning for each category that mean brightness alone decides."""
    found = {}
    for subject in subjects:
        values = _controls(results, subject, "mean")
        if values and max(mean(values), 1 - mean(values)) >= _CONFOUNDED:
            found[subject.category] = mean(values)
    texts = [
        f"On `{category}` mean brightness alone has AUROC {auroc:.3f}: a score that errs more on "
        "bright pictures, or on dark ones, gets an AUROC near 1 or near 0 without seeing a defect."
        for category, auroc in found.items()
    ]
    return [Items(texts)] if texts else []
