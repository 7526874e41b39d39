"""Good pictures are all that training needs."""

import json
import shutil

import daad_jax
from daad_jax.cli import main
from tests.cli.test_cli import TINY, train_args
from tests.cli.test_grid import grid_args
from tests.data.test_folder import make_category, write

CALIBRATED = ["--config.data.calibration_fraction=0.2", "--config.score.protocol=calibrated"]

KINDS = ("patch", "scar", "stain", "halves")


def test_one_category_without_test_images_beside_one_with_them(tmp_path, capsys):
    root = tmp_path / "parts"
    shutil.rmtree(make_category(root, "bolt", masks=False) / "test")
    picture = make_category(root, "nut") / "test/bent/000.png"
    args = train_args(root, tmp_path / "w", *CALIBRATED, category="all", setting="ae")
    for command in (args, ["evaluate", f"--workdir={tmp_path}/w"]):
        assert main(command) == 0
        captured = capsys.readouterr()
        assert "warning: bolt: no normal and no defective test image" in captured.err
        assert "could not be written" not in captured.err
        lines = [line.split() for line in captured.out.splitlines()[-8:] if line]
        rows = {line[0]: line[1:] for line in lines}
        assert set(rows["bolt"]) == {"-"}
        assert rows["mean"][0] == "-" != rows["nut"][0]
    summary = json.loads((tmp_path / "w/bolt/evaluation.json").read_text())
    assert summary["threshold"] == daad_jax.load(tmp_path / "w/bolt").threshold
    assert summary["pseudo"]["scores"]["R"] >= 0
    assert daad_jax.load(tmp_path / "w/bolt").score([picture]).defective is not None
    assert (tmp_path / "w/bolt/scores.csv").read_text().count("\n") == 1
    page = (tmp_path / "w/bolt/report.html").read_text()
    assert "There is no AUROC" in page
    assert "Artificial defects" in page
    assert all(f"<h3>{kind}</h3>" in page for kind in KINDS)
    assert "Artificial defects" not in (tmp_path / "w/nut/report.html").read_text()


def test_a_folder_is_all_that_train_and_evaluate_need(tmp_path, monkeypatch, capsys):
    for index in range(20):
        write(tmp_path / f"my part/ok/{index:02d}.png", 5 * index, flat=False)
    for index in range(3):
        write(tmp_path / f"my part/ko/{index}.png", 200)
    monkeypatch.chdir(tmp_path)
    names = ["--config.data.good=ok", "--config.data.bad=ko"]
    assert main(["train", "my part", "--config=folder:ae", *names, *TINY]) == 0
    assert main(["evaluate", "runs/my part"]) == 0
    summary = json.loads((tmp_path / "runs/my part/evaluation.json").read_text())
    assert (summary["train_images"], summary["calibration_images"]) == (14, 2)
    assert (summary["test_good"], summary["test_defective"]) == (4, 3)
    capsys.readouterr()
    assert main(["evaluate", "runs/my part", "--workdir=runs/my part"]) == 2
    assert "--workdir: the workdir is given already, as 'runs/my part'" in capsys.readouterr().err


def test_a_grid_and_its_table_do_without_aurocs(tmp_path, capsys):
    shutil.rmtree(make_category(tmp_path / "parts", masks=False) / "test")
    assert main(grid_args(tmp_path / "parts", tmp_path / "g.jsonl")) == 0
    assert "image AUROC none" in capsys.readouterr().out
    assert main(["table", str(tmp_path / "g.jsonl")]) == 0
    header, _, row = capsys.readouterr().out.splitlines()
    assert "| R |" in header
    assert "pca" not in header
    assert row.split("|")[-2].strip() == "-"
