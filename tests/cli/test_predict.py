"""``predict`` from a trained run to rows, maps and a page."""

import csv
import io
import shutil
import signal
import time

import numpy as np
import pytest
from PIL import Image

import daad_jax
from daad_jax.cli import main
from tests.data.test_folder import write
from tests.processes import COMMAND, child, kill, reaching, wait_for

CUT = "\u2702.png"
IMPORT = "import sys\n"


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Five pictures of different sizes and one that is broken, in two folders."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for index, size in enumerate([(20, 30), (16, 16), (41, 17), (16, 16)]):
        path = tmp_path / f"new/{index % 2}/{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, size, dtype=np.uint8)).save(path)
    Image.new("RGB", (24, 18), "red").save(tmp_path / "new/colour.jpg")
    (tmp_path / "new" / CUT).write_bytes(b"not a picture")
    return tmp_path / "new"


def predict(workdir, *words, output="out"):
    return main(["predict", str(workdir), *map(str, words), f"--output={output}"])


def rows(output):
    with (output / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_folder_becomes_rows_maps_and_a_page(calibrated_run, pictures, tmp_path, capsys):
    assert predict(calibrated_run, "new", "--maps=3", "--raw_maps=npy", "--batch_size=2") == 0
    out = capsys.readouterr().out
    assert "threshold of A: " in out
    assert (
        f"6 pictures: {sum(row['defective'] == '1' for row in rows(tmp_path / 'out'))} def" in out
    )
    found = {row["path"]: row for row in rows(tmp_path / "out")}
    files = [path for path in sorted(pictures.rglob("*.*g")) if path.is_file()]
    assert sorted(found) == sorted(map(str, files))
    broken = found.pop(str(pictures / CUT))
    assert broken["score"] == broken["defective"] == ""
    assert broken["error"] == "is not a whole image file; replace or remove it"
    result = daad_jax.load(calibrated_run).score(list(found))
    for name in ("calibrated_score", "p_value"):
        values = [float(row[name]) for row in found.values()]
        np.testing.assert_allclose(values, getattr(result, name), rtol=1e-4)
    scores = np.array([float(row["score"]) for row in found.values()])
    np.testing.assert_allclose(scores, result.scores["A"], rtol=1e-4)
    assert [row["defective"] == "1" for row in found.values()] == result.defective.tolist()
    maps = {path.name for path in (tmp_path / "out/maps").iterdir()}
    assert len(maps) == 9
    worst = [list(found)[index] for index in np.argsort(-scores)[:3]]
    page = (tmp_path / "out/predictions.html").read_text()
    for path in worst:
        with Image.open(path) as picture:
            size = picture.size
        stem = path.rsplit("/", 1)[1].split(".")[0]
        own = [name for name in maps if name.startswith(f"{stem}-")]
        assert len(own) == 3
        for name in own:
            if name.endswith("png"):
                with Image.open(tmp_path / "out/maps" / name) as drawn:
                    assert (drawn.size, drawn.mode) == (size, "RGB")
            else:
                assert np.load(tmp_path / "out/maps" / name).shape == size[::-1]
    assert page.count("overlay of") == 3
    assert 'src="http' not in page


def test_the_same_command_adds_nothing_and_new_files_are_added(
    calibrated_run, pictures, tmp_path, capsys
):
    assert predict(calibrated_run, "new") == 0
    before = (tmp_path / "out/predictions.csv").read_bytes()
    assert predict(calibrated_run, "new", pictures / "colour.jpg", "--maps=0") == 0
    assert (tmp_path / "out/predictions.csv").read_bytes() == before
    assert "6 of 6 pictures have their row already" in capsys.readouterr().out
    assert list((tmp_path / "out/maps").iterdir()) == []
    write(pictures / "later.png")
    assert predict(calibrated_run, "new/*.png") == 0
    after = (tmp_path / "out/predictions.csv").read_bytes()
    assert after.startswith(before)
    assert after[len(before) :].count(b"\n") == 1


def test_a_threshold_for_this_call(calibrated_run, pictures, tmp_path, capsys):
    assert predict(calibrated_run, "new", "--threshold=-1e6", "--raw_maps=tiff") == 0
    assert [row["defective"] for row in rows(tmp_path / "out") if row["score"]] == ["1"] * 5
    overlays = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/maps").glob("*.png")}
    with Image.open(next((tmp_path / "out/maps").glob("*.tiff"))) as values:
        assert values.mode == "F"
    assert predict(calibrated_run, "new", "--false_alarm_rate=0.001") == 0
    assert {row["defective"] for row in rows(tmp_path / "out")} != {"1"}
    captured = capsys.readouterr()
    assert "2 pictures cannot promise 0.1 %: at best 33 %" in captured.err
    assert "had another threshold and are decided again" in captured.out
    assert all(path.stat().st_mtime_ns > before for path, before in overlays.items())
    assert not list((tmp_path / "out/maps").glob("*.tiff"))


def test_a_list_on_stdin_may_name_files_that_are_gone(
    calibrated_run, pictures, tmp_path, monkeypatch
):
    monkeypatch.setattr("sys.stdin", io.StringIO("new/colour.jpg\nnew/gone.png\n"))
    assert predict(calibrated_run, "-") == 0
    first, second = rows(tmp_path / "out")
    assert (first["path"], first["error"]) == (str(pictures / "colour.jpg"), "")
    assert "cannot be read" in second["error"]


def test_the_default_output_is_in_the_workdir(calibrated_run, pictures, tmp_path):
    copy = shutil.copytree(calibrated_run, tmp_path / "w")
    assert main(["predict", str(copy), "new/colour.jpg"]) == 0
    assert len(rows(copy / "predictions")) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give folders, globs or files"),
        (["nowhere"], "nowhere: no such file or folder"),
        (["new", "--maps=few"], "--maps: 'few' is not a whole number or all"),
        (["new", "--threshold=1", "--false_alarm_rate=0.1"], "--threshold: give it or"),
        (["new", "--false_alarm_rate=1"], "--false_alarm_rate: 1.0 must be between 0 and 1"),
        (["new", "--threshold=nan"], "--threshold: nan must be finite"),
        (["new", "--batch_size=0"], "score.batch_size: 0 must be from 1 to 4096"),
        (["new/colour.jpg", "--watch"], "--watch: needs a folder"),
        (["empty"], "the inputs hold no picture"),
    ],
)
def test_wrong_flags_are_one_line_and_write_nothing(
    calibrated_run, pictures, tmp_path, capsys, words, message
):
    (tmp_path / "empty").mkdir()
    assert predict(calibrated_run, *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_held_out_pictures_there_is_no_threshold(
    calibrated_run, pictures, tmp_path, capsys
):
    copy = shutil.copytree(calibrated_run, tmp_path / "w")
    (copy / "calibration.json").unlink()
    assert predict(copy, "new", "--threshold=1") == 2
    assert predict(copy, "new") == 0
    assert "daad-jax calibrate" in capsys.readouterr().err
    row = rows(tmp_path / "out")[0]
    assert row["score"]
    assert row["defective"] == row["p_value"] == ""
    assert "no threshold" in (tmp_path / "out/predictions.html").read_text()


@pytest.mark.slow
def test_after_a_kill_every_file_has_one_row(calibrated_run, pictures, tmp_path):
    for index in range(30):
        write(pictures / f"many/{index:02d}.png", index)
    command = ["predict", str(calibrated_run), str(pictures), "--output=out", "--batch_size=2"]
    whole = tmp_path / "whole"
    assert main([*command, f"--output={whole}"]) == 0
    for place in ("many/12.png", "many/24.png"):
        with reaching("open", place, command) as process:
            wait_for(process, "reached")
            kill(process)
    assert 1 < len(rows(tmp_path / "out")) < len(rows(whole))
    assert main(command) == 0
    names = [row["path"] for row in rows(tmp_path / "out")]
    assert len(set(names)) == len(names) == 36
    for one, other in zip(rows(tmp_path / "out"), rows(whole), strict=True):
        assert one.keys() == other.keys()
        assert (one["path"], one["error"]) == (other["path"], other["error"])
        if other["score"]:
            assert float(one["score"]) == pytest.approx(float(other["score"]), rel=1e-4)


def test_a_watched_folder_is_scored_until_a_signal(calibrated_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "camera").mkdir()
    command = ["predict", str(calibrated_run), "camera", "--watch", "--output=out"]
    with child(IMPORT + COMMAND, "", "", *command) as process:
        wait_for(process, "watching for new pictures; Ctrl-C ends it")
        write(tmp_path / "camera/a.png")
        deadline = time.monotonic() + 60
        while not list((tmp_path / "out/maps").glob("a-*_overlay.png")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate()
    assert process.returncode == 75
    assert "interrupted by SIGINT; re-run the same command to resume" in error
    assert "Traceback" not in error
    assert [row["path"] for row in rows(tmp_path / "out")] == [str(tmp_path / "camera/a.png")]
