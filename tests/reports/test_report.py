import base64
import csv
import io
import json
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from daad_jax import config as config_lib
from daad_jax.cli import output
from daad_jax.data.dataset import Dataset, ImageSet
from daad_jax.errors import printable
from daad_jax.evaluation import evaluate as evaluation
from daad_jax.evaluation import metrics
from daad_jax.evaluation.evaluate import Evaluation
from daad_jax.evaluation.picking import pick_examples
from daad_jax.reports import examples, plots
from daad_jax.reports import html as html_report
from daad_jax.reports import text as report
from daad_jax.scoring.calibration import Calibration, Origin, fit_reference
from daad_jax.scoring.deviation import fit_deviation, image_light
from daad_jax.scoring.scores import SCORES, MinMax, RawScores, Scales, Score
from daad_jax.train.losses import LOSSES, Loss
from daad_jax.train.metrics_log import METRICS_FILE

SIZE = 16
LOCALIZATION = ("pixel_auroc", "pixel_average_precision", "aupro_30", "aupro_5")
HOSTILE = [
    '"><script>alert(1)</script>.png',
    'it\'s "quoted" & <b>bold</b>.png',
    "line\nbreak\ttab.png",
    os.fsdecode(b"caf\xe9.png"),
    "\u202egnp.exe",
    "</style></title><img src=x onerror=alert(1)>.png",
    "javascript:alert(1)",
]
TAGS = (
    "html head meta link title style body h1 h2 h3 div span b p a br figure figcaption table thead "
    "tbody tr th td details summary img svg g defs path text tspan use clippath rect image"
)


class Page(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.images = set(), [], "", {}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += attributes
        if tag == "img":
            values = dict(attributes)
            self.images[values["alt"]] = values["src"]

    def handle_data(self, data):
        self.text += data

    def pixels(self, alt):
        data = self.images[alt].split("base64,")[1]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))

    def targets(self):
        return [value for name, value in self.attributes if name in ("src", "href", "xlink:href")]


def fabricate(
    setting="daad_plus",
    names=None,
    kinds=None,
    masks=True,
    category="tile",
    protocol="calibrated",
):
    """An evaluation made without networks."""
    rng = np.random.default_rng(0)
    config = config_lib.from_setting(setting)
    config.score.protocol = protocol
    config.score.bootstrap_samples = 20
    config.data.image_size = SIZE
    kinds = kinds or ["good"] * 6 + ["dent"] * 6
    names = names or [f"test/{kind}/{index}.png" for index, kind in enumerate(kinds)]
    count = len(kinds)
    labels = np.array([kind != "good" for kind in kinds], dtype=np.int64)
    images = rng.integers(0, 255, (count, SIZE, SIZE, 1), dtype=np.uint8)
    mask = np.zeros((count, SIZE, SIZE), bool)
    mask[labels == 1, 3:7, 5:9] = True
    test = ImageSet(images, names, kinds, mask if masks else None)
    raw = RawScores(
        rng.random(count) + labels,
        rng.random(count) if config.has_discriminator else None,
        (rng.random((count, SIZE, SIZE)) * np.arange(1, count + 1)[:, None, None]).astype("f4"),
        rng.random((count, 4, 4)).astype("f4") if config.has_discriminator else None,
        rng.uniform(-1, 1, (count, SIZE, SIZE, 1)).astype("f4"),
        image_light(images),
    )
    alignment = MinMax(0.0, 1.0) if config.has_discriminator else None
    deviations = {"R": fit_deviation(raw.reconstruction_score, raw.light)}
    scales = Scales(MinMax(0.0, 1.0), alignment)
    origin = Origin("quantile", 0.99, "held-out")
    calibration = Calibration(7, "A", scales, 1.0, deviations, {}, origin, (0.5, 0.75), (1.0, 2.0))
    named = evaluation._test_scores(raw, config, calibration, fit_reference(raw, 7))
    scores = {
        name: metrics.detection_metrics(labels, values, samples=20, seed=0)
        for name, values in named.items()
    }
    memory = {"scale_1": {"images": 12, "items": 500, "items_read": 468, "never_read": 32}}
    memory["scale_1"] |= {"effective_items": 77.3, "active_items": 2.5, "entropy": 0.75}
    memory["scale_1"] |= {"dead_reads": 3, "cosine_mean": 0.11, "cosine_largest": 0.93}
    summary = {
        "category": category,
        "setting": setting,
        "step": 7,
        "protocol": config.score.protocol,
        "train_images": 50,
        "calibration_images": 5,
        "test_good": int(np.sum(labels == 0)),
        "test_defective": int(np.sum(labels)),
        "scores": scores,
        "by_kind": {kind: dict.fromkeys(named, 0.75) for kind in set(kinds) - {"good"}},
        **dict.fromkeys(LOCALIZATION, 0.8125 if masks else None),
        "pixel_auroc_relative": 0.8375 if masks else None,
        "masks": evaluation.count_masks(test),
        "decision": "A",
        "threshold": 1.0,
        "threshold_from": calibration.describe(),
        "controls": {"pca": {"image_auroc": 0.4, "turned_around": 0.6}},
        "memory": memory if setting.startswith(("daad", "memae")) else {},
        "pseudo": None,
    }
    maps, called = raw.anomaly_map, named["A"] >= 1.0
    found = Evaluation(config, summary, raw, maps, named, calibration, defective=called)
    return found, Dataset(category, test, test, test.take(slice(0)))


METRICS = {
    "loss/generator": 0.9,
    "loss/adv": 0.7,
    "loss/rec": 0.2,
    "discriminator/real": 0.6,
    "discriminator/fake": 0.4,
    "gradient_norm/generator": 2.0,
    "memory/scale_1/active_items": 9.0,
    "memory/scale_1/dead_reads": 0.0,
}


def write_metrics(workdir, steps=30, **metrics):
    values = METRICS | {name.replace("__", "/"): value for name, value in metrics.items()}
    lines = [{"step": step, **values} for step in range(1, steps + 1)]
    path = workdir / METRICS_FILE
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def check_alone(text, *, links=()):
    """No scripts, and nothing that a browser would fetch."""
    parsed = Page(text)
    assert parsed.tags <= set(TAGS.split())
    assert not [name for name, _ in parsed.attributes if name.startswith("on")]
    targets = [target for target in parsed.targets() if not target.startswith(("data:", "#"))]
    assert targets == list(links)
    assert "://" not in text
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    return parsed


def captions(parsed):
    """The captions of all plots, which are also their descriptions."""
    return [value for name, value in parsed.attributes if name == "aria-label"]


def test_report_holds_what_was_found(tmp_path):
    write_metrics(tmp_path)
    found, dataset = fabricate()
    found.summary["pseudo"] = {"scores": {"R": 0.1234}}
    text = html_report.write_report(tmp_path, found, dataset).read_text()
    parsed = check_alone(text)
    assert 'name="viewport"' in text
    values = found.summary["scores"]["A"]
    for shown in (
        f"{values['image_auroc']:.4f}",
        f"{values['image_auroc_interval'][0]:.3f} to {values['image_auroc_interval'][1]:.3f}",
        "0.8125",  # pixel AUROC, average precision and AUPRO
        "at the masks' own size, 16 x 16.",
        "0.8375",  # pixel AUROC of the relative map
        "0.1234",  # pseudo-defects
        "A (calibrated)",
        "at or above 1.0000 is defective",
        "pca",
        "dent",
        "memory.division_rates",
    ):
        assert shown in parsed.text
    for cell in ("468", "77.30", "0.93"):  # items read, effective items, largest cosine
        assert f"<td>{cell}</td>" in text
    assert "Training had no dead reads" in parsed.text
    assert not list(tmp_path.glob(".*"))


def test_every_score_of_the_table_is_shown(tmp_path, monkeypatch):
    score = Score(lambda x: -x.raw.reconstruction_score, "the opposite of R", headline=True)
    monkeypatch.setitem(SCORES, "my_score", score)
    parsed = Page(html_report.write_report(tmp_path, *fabricate()).read_text())
    for name, entry in SCORES.items():
        if name != "A_calibrated":  # a run has one of A, A_paper and A_calibrated twice
            assert entry.sentence in parsed.text, name
    assert "the opposite of R" in parsed.text
    assert "my score of good and of defective test images." in captions(parsed)
    assert parsed.text.count("my score") > 3  # the tables of scores and of kinds, the histogram


def test_every_logged_metric_is_plotted(tmp_path, monkeypatch):
    loss = Loss(lambda outputs, spec: 0.0, False, "difference of the edges")
    monkeypatch.setitem(LOSSES, "edges", loss)
    write_metrics(tmp_path, loss__edges=0.3, memory__scale_1__codebook=0.1, speed__fast=1.0)
    parsed = Page(html_report.write_report(tmp_path, *fabricate()).read_text())
    drawn = captions(parsed)
    start = drawn.index("Reconstruction error.")
    assert drawn[start : start + 4] == [
        "Reconstruction error.",
        "Adversarial loss of the generator.",
        "Difference of the edges.",
        "Total loss of the generator, the weighted sum of its terms.",
    ]
    assert drawn[start + 4].startswith("Probability of being real")
    assert "Norm of the gradient of each network." in drawn
    assert "Metric speed." in drawn
    assert drawn[-2:] == [
        "Items with a weight above zero in a read, mean of a batch.",
        "Metric codebook.",
    ]


@pytest.mark.parametrize("protocol", ["paper", "calibrated"])
def test_the_threshold_is_drawn_at_the_calibrated_score(tmp_path, protocol):
    text = html_report.write_report(tmp_path, *fabricate(protocol=protocol)).read_text()
    assert f"image AUROC of A ({protocol})" in text
    text, _, after = text.partition(">Localisation<")
    assert (">threshold<" in after) == (protocol == "calibrated")  # A (paper) is drawn there
    drawn = [part for part in text.split("<figure") if ">threshold<" in part]
    assert len(drawn) == 1
    assert "A (calibrated) of good and of defective test images" in drawn[0]


def test_examples_show_the_decisions(tmp_path):
    found, dataset = fabricate()
    parsed = Page(html_report.write_report(tmp_path, found, dataset).read_text())
    score, names = found.scores["A"], dataset.test.names
    assert {shown_decision(score.min()), shown_decision(score.max())} == {"good", "defective"}
    for index in (np.argmax(score[:6]), np.argmin(score), np.argmax(score)):
        assert f"decision: {shown_decision(score[index])}{names[index]}" in parsed.text
    found = found._replace(defective=None)
    parsed = Page(html_report.write_report(tmp_path, found, dataset).read_text())
    assert "decision:" not in parsed.text


def shown_decision(score):
    return "defective" if score >= 1.0 else "good"


def test_dead_reads_are_drawn_where_there_are_any(tmp_path):
    write_metrics(tmp_path, memory__scale_1__dead_reads=3.0)
    parsed = Page(html_report.write_report(tmp_path, *fabricate()).read_text())
    assert "Reads of a batch whose weights are all zero." in captions(parsed)
    assert "no dead reads" not in parsed.text


def test_report_repeats(tmp_path):
    write_metrics(tmp_path)
    first = html_report.write_report(tmp_path, *fabricate()).read_bytes()
    assert html_report.write_report(tmp_path, *fabricate()).read_bytes() == first


def test_hostile_names_are_shown_not_obeyed(tmp_path):
    kinds = ["good"] * 3 + HOSTILE
    names = [f"{name}/{place}" for place, name in enumerate(["a", "b", "c", *HOSTILE])]
    found, dataset = fabricate(names=names, kinds=kinds, category=HOSTILE[0])
    parsed = check_alone(html_report.write_report(tmp_path, found, dataset).read_text())
    for name in names[3:]:
        assert printable(name) in parsed.text
        assert f"input of {printable(name)}" in parsed.images
    assert "caf\\udce9" in parsed.text
    assert "line\\nbreak\\ttab" in parsed.text
    assert "\u202e" not in parsed.text
    assert "alert(1)" in parsed.text


def test_hostile_names_in_tables_and_csv(tmp_path):
    kinds = ["good"] * 3 + HOSTILE
    found, dataset = fabricate(names=["a", "b", "c", *HOSTILE], kinds=kinds, category=HOSTILE[3])
    table = report.evaluation_table(found.summary)
    table += report.summary_table([found.summary])
    table.encode("utf-8")
    assert "line\\nbreak" in table
    path = tmp_path / "scores.csv"
    evaluation.write_scores(path, dataset, found.scores, np.zeros(len(kinds), bool))
    rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    assert len(rows) == 1 + len(kinds)
    assert [row[0] for row in rows[4:7]] == HOSTILE[:3]
    assert rows[7][0] == "caf\\udce9.png"


def test_all_maps_share_one_colour_scale(tmp_path):
    found, dataset = fabricate()
    parsed = Page(html_report.write_report(tmp_path, found, dataset).read_text())
    maps = found.raw.anomaly_map
    scale = plots.color_scale(maps)
    shown = {alt: alt for alt in parsed.images if alt.startswith("anomaly map of ")}
    assert len(shown) == 6
    for alt in shown:
        index = dataset.test.names.index(alt.removeprefix("anomaly map of "))
        np.testing.assert_array_equal(parsed.pixels(alt), plots.map_colors(maps[index], scale))
        np.testing.assert_array_equal(
            parsed.pixels(f"input of {dataset.test.names[index]}"),
            dataset.test.images[index, ..., 0],
        )
    assert f"to {scale[1]:.3g}, the 99.5 % quantile of all test pixels" in parsed.text


@pytest.mark.parametrize("setting", ["ae", "memae", "daad"])
def test_report_of_settings_without_some_parts(tmp_path, setting):
    found, dataset = fabricate(setting, masks=False)
    parsed = check_alone(html_report.write_report(tmp_path, found, dataset).read_text())
    assert "No metrics were logged." in parsed.text
    assert ("dead reads" in parsed.text) == (setting != "ae")
    assert "outline of the mask" not in parsed.text


def test_examples_are_worst_typical_and_best():
    kinds = ["good"] * 5 + ["dent"] * 3 + ["a"] * 2 + ["z"]
    scores = np.array([5, 1, 2, 3, 4, 30, 10, 20, 8, 9, 7.0])
    picked = pick_examples(kinds, scores)
    assert [tuple(example) for example in picked] == [
        ("good", "worst", 0),
        ("good", "typical", 3),
        ("good", "best", 1),
        ("a", "worst", 8),
        ("a", "best", 9),
        ("dent", "worst", 6),
        ("dent", "typical", 7),
        ("dent", "best", 5),
        ("z", "only one", 10),
    ]


def test_outline_runs_along_the_masks_edge():
    mask = np.zeros((8, 8), bool)
    mask[0:3, 2:6] = True
    path = examples.outline(mask)
    points = np.array([pair.split() for pair in re.findall(r"[\d.]+ [\d.]+", path)], float)
    assert path.count("M") == 1
    np.testing.assert_array_equal(points.min(axis=0), [2, 0])
    np.testing.assert_array_equal(points.max(axis=0), [6, 3])


def test_summary_links_each_category(tmp_path):
    folders = ["tile", 'a"b', os.fsdecode(b"\xff"), "javascript:alert(1)", "<b>"]
    results = [fabricate(category=name)[0].summary for name in folders]
    for place, result in enumerate(results):
        result["scores"]["A"]["image_auroc"] = place / 10
    text = html_report.write_summary(tmp_path, results, folders).read_text()
    parsed = check_alone(
        text,
        links=[
            "tile/report.html",
            "a%22b/report.html",
            "%FF/report.html",
            "javascript%3Aalert%281%29/report.html",
            "%3Cb%3E/report.html",
        ],
    )
    for name in folders:
        assert printable(name) in parsed.text
    last = text[text.index('<tr class="total">') :]
    assert "<td>0.2000</td>" in last


def test_a_failing_report_costs_nothing(capsys):
    def fail():
        raise ValueError("no font")

    output._write(fail)
    assert "report.html could not be written: ValueError('no font')" in capsys.readouterr().err


def test_many_kinds_are_cut_with_a_remark(tmp_path):
    kinds = ["good"] * 2 + [f"kind {index:02}" for index in range(30)]
    text = html_report.write_report(tmp_path, *fabricate(kinds=kinds)).read_text()
    parsed = Page(text)
    assert "The first 24 of 31 kinds are shown." in parsed.text
    assert len(parsed.images) == 3 * (2 + 23)
    assert "kind 29" in parsed.text  # the table of kinds is whole
