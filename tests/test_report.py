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

from daad_jax import (
    cli,
    controls,
    evaluation,
    html_report,
    metrics,
    plots,
    report,
    scoring,
    training,
)
from daad_jax import config as config_lib
from daad_jax.data.dataset import Dataset, ImageSet
from daad_jax.evaluation import Evaluation
from daad_jax.scoring import Calibration, RawScores, Scale

SIZE = 16
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


def fabricate(setting="daad_plus", names=None, kinds=None, masks=True, category="tile"):
    """An evaluation that no network took part in."""
    rng = np.random.default_rng(0)
    config = config_lib.from_setting(setting)
    config.score.bootstrap_samples = 20
    kinds = kinds or ["good"] * 6 + ["dent"] * 6
    names = names or [f"test/{kind}/{index}.png" for index, kind in enumerate(kinds)]
    count = len(kinds)
    labels = np.array([kind != "good" for kind in kinds], dtype=np.int64)
    images = rng.integers(0, 255, (count, SIZE, SIZE, 1), dtype=np.uint8)
    mask = np.zeros((count, SIZE, SIZE), bool)
    mask[labels == 1, 3:7, 5:9] = True
    test = ImageSet(images, names, np.full(count, 9), kinds, mask if masks else None)
    raw = RawScores(
        rng.random(count) + labels,
        rng.random(count) if config.has_discriminator else None,
        (rng.random((count, SIZE, SIZE)) * np.arange(1, count + 1)[:, None, None]).astype("f4"),
        rng.random((count, 4, 4)).astype("f4") if config.has_discriminator else None,
        rng.uniform(-1, 1, (count, SIZE, SIZE, 1)).astype("f4"),
    )
    alignment = Scale(0.0, 1.0) if config.has_discriminator else None
    calibration = Calibration(7, Scale(0.0, 1.0), alignment, 0.8)
    reference = scoring.fit_reference(raw, 7)
    named = evaluation.named_scores(raw, config, calibration, reference)
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
        "pixel_auroc": 0.8125 if masks else None,
        "pixel_auroc_relative": 0.8375 if masks else None,
        "verdict": "A",
        "threshold": 0.8,
        "controls": controls.evaluate_controls({"file_size": rng.random(count)}, labels),
        "memory": memory if setting.startswith(("daad", "memae")) else {},
        "pseudo": None,
    }
    empty = test.take(slice(0))
    return Evaluation(config, summary, raw, named, calibration), Dataset(
        category, test, test, empty
    )


def write_metrics(workdir, dead_reads=0.0, steps=30):
    lines = [
        {
            "step": step,
            "loss/rec": 1 / step,
            "loss/adv": 0.7,
            "discriminator/real": 0.6,
            "gradient_norm/generator": 2.0,
            "memory/scale_1/active_items": 9.0,
            "memory/scale_1/dead_reads": dead_reads,
        }
        for step in range(1, steps + 1)
    ]
    path = workdir / training.METRICS_FILE
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


def test_report_holds_what_was_found(tmp_path):
    write_metrics(tmp_path)
    found, dataset = fabricate()
    text = html_report.write_report(tmp_path, found, dataset).read_text()
    parsed = check_alone(text)
    assert 'name="viewport"' in text
    values = found.summary["scores"]["A"]
    for shown in (
        f"{values['image_auroc']:.4f}",
        f"{values['image_auroc_interval'][0]:.3f} to {values['image_auroc_interval'][1]:.3f}",
        "0.8125",  # pixel AUROC
        "A (calibrated)",
        "file size",
        "dent",
        "468",  # items read
        "memory.division_rates",
    ):
        assert shown in parsed.text
    assert text.count('aria-label="') == 5 + 4 + 1 + 1  # scores, training, memory, the bar
    assert "No logged read dropped every weight" in parsed.text
    assert not list(tmp_path.glob(".*"))


def test_dead_reads_are_drawn_where_there_are_any(tmp_path):
    write_metrics(tmp_path, dead_reads=3.0)
    parsed = Page(html_report.write_report(tmp_path, *fabricate()).read_text())
    assert "Reads of a batch that dropped every weight" in parsed.text
    assert "No logged read" not in parsed.text


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
        assert report.printable(name) in parsed.text
        assert f"input of {report.printable(name)}" in parsed.images
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
    evaluation._write_scores(path, dataset, found.scores, np.zeros(len(kinds), bool))
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
    assert f"quantile of all test pixels, {scale[1]:.3g}" in parsed.text


@pytest.mark.parametrize("setting", ["ae", "memae", "daad"])
def test_report_of_settings_without_some_parts(tmp_path, setting):
    found, dataset = fabricate(setting, masks=False)
    parsed = check_alone(html_report.write_report(tmp_path, found, dataset).read_text())
    assert f"There is no {training.METRICS_FILE}" in parsed.text
    assert ("dead" in parsed.text) == (setting != "ae")
    assert "outline" not in parsed.text


def test_read_metrics_survives_a_damaged_file(tmp_path):
    assert training.read_metrics(tmp_path) == {}
    path = tmp_path / training.METRICS_FILE
    path.write_text('{"step": 1, "a": 2.0}\n{"step": 2, "a": "nan", "b": 1}\nnull\n{"step": 3, "a')
    columns = training.read_metrics(tmp_path)
    np.testing.assert_array_equal(columns["step"], [1, 2])
    np.testing.assert_array_equal(columns["a"], [2.0, np.nan])
    np.testing.assert_array_equal(columns["b"], [np.nan, 1.0])
    assert html_report.write_report(tmp_path, *fabricate()).exists()


def test_examples_are_worst_typical_and_best():
    kinds = ["good"] * 5 + ["dent"] * 3 + ["a"] * 2 + ["z"]
    scores = np.array([5, 1, 2, 3, 4, 30, 10, 20, 8, 9, 7.0])
    picked = html_report.pick_examples(kinds, scores)
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
    path = html_report.outline(mask)
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
        assert report.printable(name) in parsed.text
    last = text[text.index('<tr class="total">') :]
    assert "<td>0.2000</td>" in last


def test_a_failing_report_costs_nothing(capsys):
    def fail():
        raise ValueError("no font")

    cli._write_report(fail)
    assert "report.html could not be written: ValueError('no font')" in capsys.readouterr().err


def test_many_kinds_are_cut_with_a_remark(tmp_path):
    kinds = ["good"] * 2 + [f"kind {index:02}" for index in range(30)]
    text = html_report.write_report(tmp_path, *fabricate(kinds=kinds)).read_text()
    parsed = Page(text)
    assert "The first 24 of 31 kinds are shown." in parsed.text
    assert len(parsed.images) == 3 * (2 + 23)
    assert "kind 29" in parsed.text  # the table of kinds is whole
