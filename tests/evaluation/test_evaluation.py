import csv
import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

import daad_jax
from daad_jax.config import ScoreConfig
from daad_jax.errors import CheckpointError, ConfigError, DataError
from daad_jax.evaluation.evaluate import count_masks, pseudo_summary, write_evaluation
from daad_jax.evaluation.localization import localization_metrics
from daad_jax.evaluation.pseudo_defects import make_pseudo_defects
from daad_jax.reports import html as html_report
from daad_jax.reports import text as report
from daad_jax.runtime import sharding
from daad_jax.scoring import calibration, scores
from daad_jax.scoring.scores import Score
from daad_jax.train.state import restore_state
from daad_jax.workdir.run import load_config
from tests.conftest import tiny_config, tiny_dataset


def evaluate_folder(folder, dataset):
    """Evaluates the last checkpoint of a folder and writes the files; returns the summary."""
    config = load_config(folder)
    mesh = sharding.make_mesh()
    state = restore_state(folder, config, daad_jax.build_networks(config), mesh)
    evaluation = daad_jax.evaluate(config, state, dataset)
    write_evaluation(folder, evaluation, dataset)
    return evaluation.summary


def change_config(folder, copy, **fields):
    """Copies a run's folder and changes fields of the score section of its config."""
    shutil.copytree(folder, copy)
    text = json.loads((copy / "config.json").read_text())
    text["score"] |= fields
    (copy / "config.json").write_text(json.dumps(text))
    return copy


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained and evaluated tiny run: workdir, config, dataset, result."""
    workdir = tmp_path_factory.mktemp("run")
    config = tiny_config(
        train__steps=30, data__calibration_fraction=0.2, score__protocol="calibrated"
    )
    dataset = dataclasses.replace(tiny_dataset(config), left_out=2)
    dataset.test.images[3] = dataset.train.images[0]
    state = daad_jax.fit(config, dataset, workdir=workdir, log=lambda _: None)
    evaluation = daad_jax.evaluate(config, state, dataset)
    write_evaluation(workdir, evaluation, dataset)
    return workdir, config, dataset, evaluation.summary


def test_the_file_holds_every_score_and_control(run):
    workdir, _, dataset, result = run
    assert json.loads((workdir / "evaluation.json").read_text()) == result
    localized = {"R_max", "R_quantile", "R_max_relative", "R_quantile_relative"}
    localized |= {"R_contrast_relative", "L_max", "L_max_relative", "R_deviation", "combined"}
    assert set(result["scores"]) == {"R", "L", "A", "A_paper"} | localized
    assert set(result["controls"]) == {"mean", "std", "gradient", "pca", "untrained"}
    assert result["test_good"] == result["test_defective"] == 10
    assert result["left_out"] == 2
    assert result["duplicates"] == {"in_training": 1, "under_both_labels": 0}
    assert result["masks"] == count_masks(dataset.test)
    for name in ("pixel_auroc", "pixel_average_precision", "aupro_30", "pixel_auroc_relative"):
        assert 0 < result[name] <= 1
    assert result["masks"]["largest"] == [16, 16]
    assert set(result["by_kind"]) == {"square"}
    assert set(result["by_kind"]["square"]) == set(result["scores"])
    assert len(dataset.test) == 20


def test_rows_of_the_csv_reproduce_the_aurocs(run):
    workdir, config, _, result = run
    rows = list(csv.DictReader((workdir / "scores.csv").open()))
    labels = np.array([int(row["label"]) for row in rows])
    columns = {name: np.array([float(row[name]) for row in rows]) for name in result["scores"]}
    for name, values in columns.items():
        assert roc_auc_score(labels, values) == result["scores"][name]["image_auroc"]
    defective = np.array([int(row["defective"]) for row in rows])
    scored = daad_jax.load(workdir).score(run[2].test.images)
    np.testing.assert_array_equal(defective, scored.defective)
    np.testing.assert_array_equal(defective, columns["A"] >= result["threshold"])
    scaled = [(columns[name] - columns[name].min()) / np.ptp(columns[name]) for name in ("R", "L")]
    gamma = config.score.gamma
    np.testing.assert_allclose(columns["A_paper"], gamma * scaled[0] + (1 - gamma) * scaled[1])


def test_localised_scores_are_those_of_the_maps_and_of_normal_training_images(run):
    workdir, config, dataset, result = run
    detector = daad_jax.load(workdir)
    normal = detector.score(dataset.train.images).anomaly_map.mean(axis=0)
    assert normal.min() > 0.01 * normal.mean()  # so that the floor plays no part
    scored = detector.score(dataset.test.images)
    relative = scored.anomaly_map / normal
    expected = {
        "R_max": scored.anomaly_map.max(axis=(1, 2)),
        "R_max_relative": relative.max(axis=(1, 2)),
        "R_contrast_relative": relative.max(axis=(1, 2)) / np.median(relative, axis=(1, 2)),
        "R_quantile_relative": np.quantile(relative, config.score.map_quantile, axis=(1, 2)),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(scored.scores[name], values, rtol=1e-4)
        auroc = roc_auc_score(dataset.test.labels, values)
        assert auroc == pytest.approx(result["scores"][name]["image_auroc"], abs=1e-6)
    assert set(scored.scores) == set(result["scores"]) - {"A_paper"}


def test_the_map_that_the_config_names_is_shown_and_measured(run, tmp_path):
    workdir, _, dataset, result = run
    copy = change_config(workdir, tmp_path / "run", map="fused", map_scales=[1.0, 2.0])
    summary = evaluate_folder(copy, dataset)
    maps = daad_jax.load(copy).score(dataset.test.images).anomaly_map
    expected = localization_metrics(dataset.test.masks, maps)
    assert {name: summary[name] for name in expected} == pytest.approx(expected, abs=1e-3)
    assert all(summary[name] != result[name] for name in expected)
    for name in ("scores", "pixel_auroc_relative", "masks", "threshold"):
        assert summary[name] == result[name]
    assert daad_jax.load(workdir).score(dataset.train.images).anomaly_map.mean() < 0.5 < maps.mean()


def test_a_damaged_reference_is_named(run, tmp_path):
    (tmp_path / "reference.npz").write_bytes(b"PK not an archive")
    with pytest.raises(CheckpointError, match=r"reference\.npz: cannot be read; run eval\.py"):
        calibration.load_reference(tmp_path, 30)
    shutil.copy(run[0] / "reference.npz", tmp_path)
    with pytest.raises(CheckpointError, match="belongs to step 30"):
        calibration.load_reference(tmp_path, 31)


def test_the_calibrated_scale_comes_from_held_out_images(run):
    workdir, config, dataset, result = run
    detector = daad_jax.load(workdir)
    held_out = detector.score(dataset.calibration.images)
    r, ali = held_out.reconstruction_score, held_out.alignment_score
    gamma = config.score.gamma
    expected = gamma * (r - r.min()) / np.ptp(r) + (1 - gamma) * (ali - ali.min()) / np.ptp(ali)
    np.testing.assert_allclose(held_out.anomaly_score, expected, rtol=1e-5, atol=1e-6)
    assert result["threshold"] == pytest.approx(np.quantile(expected, 0.99), rel=1e-5)
    assert detector.threshold == result["threshold"]


def test_a_localised_score_decides_when_the_config_names_it(run, tmp_path):
    workdir, _, dataset, result = run
    copy = change_config(workdir, tmp_path / "run", decision="R_contrast_relative")
    with pytest.raises(CheckpointError, match=r"is for score\.decision='A', the config has"):
        daad_jax.load(copy)
    summary = evaluate_folder(copy, dataset)
    assert summary["decision"] == "R_contrast_relative"
    assert summary["scores"] == result["scores"]
    detector = daad_jax.load(copy)
    held_out = detector.score(dataset.calibration.images).scores["R_contrast_relative"]
    assert detector.threshold == pytest.approx(np.quantile(held_out, 0.99), rel=1e-5)
    scored = detector.score(dataset.test.images)
    expected = scored.scores["R_contrast_relative"] >= detector.threshold
    np.testing.assert_array_equal(scored.defective, expected)
    rows = list(csv.DictReader((copy / "scores.csv").open()))
    np.testing.assert_array_equal([row["defective"] == "1" for row in rows], expected)
    (copy / "reference.npz").unlink()
    with pytest.raises(CheckpointError, match=r"reference\.npz: is missing.*run eval\.py"):
        daad_jax.load(copy).score(dataset.test.images)


def test_pseudo_defects_are_scored_against_the_held_out_images(run):
    workdir, _, dataset, result = run
    pseudo, held_out = result["pseudo"], dataset.calibration.images
    assert (pseudo["normal_images"], pseudo["defects"]) == (len(held_out), 4 * len(held_out))
    assert set(pseudo["scores"]) == set(result["scores"]) - {"A_paper"}
    detector = daad_jax.load(workdir)
    defects = make_pseudo_defects(held_out, dataset.train.images)
    kinds, labels = np.array(defects.kinds), np.repeat([0, 1], len(held_out))
    for name, field in (("R", "reconstruction_score"), ("A", "anomaly_score")):
        normal = getattr(detector.score(held_out), field)
        values = getattr(detector.score(defects.images), field)
        for kind, aurocs in pseudo["by_kind"].items():
            scores = np.concatenate([normal, values[kinds == kind]])
            assert aurocs[name] == pytest.approx(roc_auc_score(labels, scores), abs=0.02)
        mean = np.mean([aurocs[name] for aurocs in pseudo["by_kind"].values()])
        assert pseudo["scores"][name] == pytest.approx(mean)


def test_pseudo_defects_with_scores_made_by_hand():
    good, bad = np.array([1.0, 2.0]), np.array([3.0, 1.5, 3.0, 0.5])
    kinds = ["scar", "patch", "scar", "patch"]
    found = pseudo_summary({"R": good, "A": -good}, {"R": bad, "A": -bad}, kinds)
    assert found == {
        "normal_images": 2,
        "defects": 4,
        "scores": {"R": 0.625, "A": 0.375},
        "by_kind": {"patch": {"R": 0.25, "A": 0.75}, "scar": {"R": 1.0, "A": 0.0}},
    }


@pytest.mark.parametrize("protocol", ["paper", "calibrated"])
def test_pseudo_defects_do_not_depend_on_the_protocol(run, tmp_path, protocol):
    workdir, _, dataset, result = run
    copy = change_config(workdir, tmp_path / "run", protocol=protocol)
    assert evaluate_folder(copy, dataset)["pseudo"] == result["pseudo"]


def test_evaluating_again_gives_the_same_numbers(run):
    workdir, _, dataset, result = run
    assert evaluate_folder(workdir, dataset) == result


def test_a_score_does_not_depend_on_the_rest_of_the_batch(run):
    workdir, _, dataset, _ = run
    detector = daad_jax.load(workdir)
    together = detector.score(dataset.test.images)
    alone = detector.score(dataset.test.images[7:8])
    mixed = detector.score(dataset.test.images[[0, 7, 13]])
    for name in ("reconstruction_score", "alignment_score", "anomaly_score", "anomaly_map"):
        ours = getattr(together, name)[7]
        np.testing.assert_allclose(getattr(alone, name)[0], ours, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(getattr(mixed, name)[1], ours, rtol=1e-5, atol=1e-7)


def test_one_device_and_eight_give_the_same_scores(run):
    workdir, config, dataset, _ = run
    networks, results = daad_jax.build_networks(config), []
    for count in (1, 8):
        mesh = sharding.make_mesh(jax.devices()[:count])
        state = restore_state(workdir, config, networks, mesh)
        results.append(daad_jax.evaluate(config, state, dataset, mesh=mesh).raw)
    assert results[0].valid is None
    for one, eight in zip(*(one._replace(valid=one.light) for one in results), strict=True):
        np.testing.assert_allclose(one, eight, rtol=1e-4, atol=1e-6)


def test_a_new_score_is_one_entry_of_the_table(run, tmp_path, monkeypatch):
    workdir, _, dataset, _ = run
    mine = Score(lambda x: scores.map_maximum(x.raw.anomaly_map) ** 2, "squared maximum")
    with pytest.raises(ConfigError, match=r"score\.decision: no score 'mine'"):
        daad_jax.check(tiny_config(score__decision="mine"))
    monkeypatch.setitem(scores.SCORES, "mine", mine)
    daad_jax.check(tiny_config(score__decision="mine"))
    copy = change_config(workdir, tmp_path / "run", decision="mine")
    summary = evaluate_folder(copy, dataset)
    assert summary["scores"]["mine"]["image_auroc"] == summary["scores"]["R_max"]["image_auroc"]
    assert "mine" in summary["pseudo"]["scores"]
    rows = list(csv.DictReader((copy / "scores.csv").open()))
    assert float(rows[3]["mine"]) == float(rows[3]["R_max"]) ** 2
    assert "mine" in report.evaluation_table(summary)
    scored = daad_jax.load(copy).score(dataset.test.images)
    np.testing.assert_array_equal(scored.defective, [row["defective"] == "1" for row in rows])


def test_load_takes_images_of_any_size(run):
    workdir, _, dataset, _ = run
    detector = daad_jax.load(workdir)
    image = dataset.test.images[0]
    large = image.repeat(2, axis=0).repeat(2, axis=1)
    colour = np.repeat(image, 3, axis=2)
    result = detector.score([image, large[..., 0], colour])
    assert result.anomaly_map.shape == (3, 16, 16)
    np.testing.assert_allclose(result.reconstruction_score, result.reconstruction_score[0])
    with pytest.raises(ValueError, match="float64"):
        detector.score([image / 255.0])
    with pytest.raises(ValueError, match="put it into a list"):
        detector.score(image)
    with pytest.raises(ValueError, match="no images"):
        detector.score([])


def test_load_takes_files_as_training_does(run, tmp_path):
    workdir, _, dataset, _ = run
    detector = daad_jax.load(workdir)
    image = dataset.test.images[0]
    Image.fromarray(image[..., 0]).quantize(256).save(tmp_path / "palette.png")
    from_file = detector.score([tmp_path / "palette.png"])
    np.testing.assert_array_equal(from_file.anomaly_score, detector.score([image]).anomaly_score)
    with pytest.raises(DataError, match="none.png: cannot be read"):
        detector.score([str(tmp_path / "none.png")])


def test_images_come_in_as_files_or_arrays(run, tmp_path, monkeypatch):
    detector, path = daad_jax.load(run[0]), tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    pixels = np.random.default_rng(3).integers(0, 256, (20, 12), np.uint8)
    Image.fromarray(pixels).save(path, exif=exif)
    monkeypatch.setenv("HOME", str(tmp_path))
    maps = detector.score([path, "~/turned.png", np.rot90(pixels, -1)]).anomaly_map
    np.testing.assert_array_equal(maps[1], maps[0])
    np.testing.assert_array_equal(maps[2], maps[0])
    with pytest.raises(ValueError, match=r"give the path of the file, or an array"):
        detector.score([Image.open(path)])


def test_home_is_expanded_for_workdirs(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(run[0], tmp_path / "w")
    detector = daad_jax.load("~/w")
    assert detector.threshold == run[3]["threshold"]
    daad_jax.fit(run[1], run[2], workdir="~/w", log=lambda _: None)
    assert not (tmp_path / "~").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kept", [slice(0), slice(10), slice(10, None)])
@pytest.mark.parametrize("protocol", ["paper", "calibrated"])
def test_without_test_images_of_both_labels_only_the_aurocs_are_missing(
    run, tmp_path, kept, protocol
):
    workdir, _, dataset, result = run
    copy = change_config(workdir, tmp_path / "run", protocol=protocol)
    config, mesh = load_config(copy), sharding.make_mesh()
    state = restore_state(copy, config, daad_jax.build_networks(config), mesh)
    dataset = dataclasses.replace(dataset, test=dataset.test.take(kept))
    evaluation = daad_jax.evaluate(config, state, dataset)
    write_evaluation(copy, evaluation, dataset)
    summary = json.loads((copy / "evaluation.json").read_text())
    assert set(summary["scores"]) >= {"R", "L", "R_max_relative", "L_max_relative"}
    assert not any(summary["scores"].values())
    assert (summary["by_kind"], summary["controls"]) == ({}, {})
    for name in ("threshold", "pseudo", "decision", "train_images", "calibration_images"):
        assert summary[name] == result[name]
    rows = list(csv.DictReader((copy / "scores.csv").open()))
    assert len(rows) == len(dataset.test) == len(evaluation.defective)
    assert daad_jax.load(copy).score(run[2].test.images).defective is not None
    table = report.evaluation_table(summary)
    assert "threshold of A" in table
    assert "pseudo-defects" in table
    assert "image AUROC" not in table
    rows = report.summary_rows([summary, result])
    assert {*rows[1][1:-2], *rows[3][1:-2]} == {"-"}
    html = html_report.write_report(copy, evaluation, dataset).read_text()
    for text in ("There is no AUROC", "pseudo-defects", "Training", "Memory", "Items used most"):
        assert text in html
    assert ("Examples</h2>" in html) == bool(len(dataset.test))


@pytest.mark.slow
def test_without_held_out_images_there_is_only_the_papers_protocol(tmp_path):
    config = tiny_config("daad", train__steps=2)
    dataset = tiny_dataset(config)
    dataset = type(dataset)(
        dataset.category, dataset.train, dataset.test, dataset.calibration.take(slice(0))
    )
    daad_jax.fit(config, dataset, workdir=tmp_path, log=lambda _: None)
    result = evaluate_folder(tmp_path, dataset)
    assert {"R", "A", "R_max_relative"} <= set(result["scores"])
    assert not any(name.startswith(("L", "A_")) for name in result["scores"])
    assert result["scores"]["A"]["image_auroc"] == result["scores"]["R"]["image_auroc"]
    assert result["threshold"] is None
    assert result["pseudo"] is None
    assert "pseudo" not in report.evaluation_table(result)
    detector = daad_jax.load(tmp_path)
    assert detector.threshold is None
    scored = detector.score(dataset.test.images[:2])
    assert scored.anomaly_score is None
    assert scored.alignment_score is None


def test_a_calibration_of_another_step_is_refused(run, tmp_path):
    workdir, _, _, _ = run
    text = (workdir / "calibration.json").read_text()
    (tmp_path / "calibration.json").write_text(text.replace('"step": 30', '"step": 29'))
    with pytest.raises(CheckpointError, match="belongs to step 29, the checkpoint to step 30"):
        calibration.load_calibration(tmp_path, 30, ScoreConfig())
    (tmp_path / "calibration.json").write_text("{}")
    with pytest.raises(CheckpointError, match="cannot be read"):
        calibration.load_calibration(tmp_path, 30, ScoreConfig())


def test_the_tables_show_the_numbers(run):
    result = run[3]
    text = report.evaluation_table(result)
    for name in (
        "R",
        "A (calibrated)",
        "A (paper)",
        "pca",
        "pixel AUROC",
        "threshold",
        "pseudo-defects (no test image used): R ",
    ):
        assert name in text
    assert f"{result['scores']['A']['image_auroc']:.4f}" in text
    other = json.loads(json.dumps(result))
    other["scores"]["R"]["image_auroc"] = 0.25
    other["category"], other["pixel_auroc"] = "other", None
    summary = report.summary_table([result, other])
    mean = (result["scores"]["R"]["image_auroc"] + 0.25) / 2
    assert summary.splitlines()[-1].split()[:2] == ["mean", f"{mean:.4f}"]
