"""The page in a real browser: drop a picture, read the decision, move the sliders."""

import numpy as np
import pytest
from PIL import Image

from tests.serve.browser import chromium
from tests.serve.services import Detector, picture, running

TEXT = "document.getElementById('{}').textContent.trim()"


@pytest.fixture(scope="module")
def tab():
    camera = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
    with chromium(*camera) as made:
        yield made


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Grey pictures of 60 and 150 with the stand-in's threshold of 100, and a broken one."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "good.png").write_bytes(picture(60, (120, 80)))
    bright = np.full((80, 120), 150, np.uint8)
    bright[:40, :60] = 250
    Image.fromarray(bright).save(folder / "bad.png")
    (folder / "broken.png").write_bytes(b"nothing")
    return folder


def read(tab, name):
    return tab.run(TEXT.format(name))


def idle(tab, count):
    tab.until(f"history_.length === {count} && !{TEXT.format('status')}")


def slide(tab, name, value):
    tab.run(f"$('{name}').value = {value}; $('{name}').dispatchEvent(new Event('input'))")


def detector():
    made = Detector()
    made.metadata |= {
        "decision": "R",
        "pixel_threshold": 200.0,
        "threshold_from": "four good pictures",
    }
    return made


@pytest.mark.slow
def test_a_picture_is_dropped_decided_and_marked(tab, files):
    with running(detector()) as service:
        tab.requests.clear()
        tab.open(f"http://127.0.0.1:{service.port}/")
        tab.until("model")
        assert "threshold 100 · from four good pictures" in read(tab, "model")
        tab.drop(files / "bad.png", "#stage")
        idle(tab, 1)
        assert read(tab, "verdict") == "✕ Defectivebad.png"
        assert (read(tab, "score"), read(tab, "calibrated"), read(tab, "p")) == (
            "175",
            "1.75",
            "0.5",
        )
        # A quarter of the picture is above the pixel threshold of 200.
        label = "$('canvas').getAttribute('aria-label')"
        assert tab.run(label).startswith("bad.png; 2")
        slide(tab, "mark", 0.7)
        assert tab.run(label) == "bad.png; 100.0 % of it is marked"
        slide(tab, "threshold", 2)
        assert read(tab, "verdict") == "✓ Goodbad.png"
        assert read(tab, "threshold-shown") == "2.00 (score 200)"
        tab.run("$('reset').click()")
        assert read(tab, "verdict") == "✕ Defectivebad.png"
        tab.give_files("#files", [files / "good.png", files / "broken.png"])
        idle(tab, 3)
        assert read(tab, "verdict") == "Not scoredbroken.png"
        assert "broken.png: is not a whole image file" in read(tab, "problems")
        assert read(tab, "count") == "3 pictures, 1 defective"
        tab.run("document.querySelectorAll('#rows button')[0].click()")
        assert read(tab, "verdict") == "✓ Goodgood.png"
        addresses = {one for one in tab.requests if not one.startswith(("data:", "blob:"))}
        base = f"http://127.0.0.1:{service.port}/"
        assert addresses == {base, f"{base}v1/model", f"{base}v1/predict?map=true"}
        assert tab.errors == []
        check_history(tab, base)


def check_history(tab, base):
    """It outlives the page, becomes a CSV file, and can be cleared."""
    tab.open(base)
    tab.until("model")
    assert read(tab, "count") == "3 pictures, 1 defective"
    tab.run(
        "window.made = null; URL.createObjectURL = (blob) => { made = blob.text(); return '#'; };"
        "HTMLAnchorElement.prototype.click = () => {}; $('csv').click()"
    )
    lines = tab.run("made").splitlines()
    assert lines[0] == "time,path,score,calibrated_score,p_value,defective,error,threshold"
    assert [line.split('","')[1] for line in lines[1:]] == ["broken.png", "good.png", "bad.png"]
    assert [line.split('","')[5] for line in lines[1:]] == ["", "0", "1"]
    tab.run("$('clear').click()")
    tab.until("history_.length === 0")
    assert tab.run("localStorage.getItem(STORE)") == "[]"


@pytest.mark.slow
def test_the_keyboard_reaches_every_control_and_a_phone_needs_no_sideways_scrolling(tab, files):
    with running(detector()) as service:
        tab.open(f"http://127.0.0.1:{service.port}/", width=360, height=740)
        tab.until("model")
        tab.give_files("#files", [files / "bad.png"])
        idle(tab, 1)
        assert tab.run("document.documentElement.scrollWidth") <= 360
        reached = []
        for _ in range(12):
            tab.press("Tab")
            reached.append(tab.run("document.activeElement.id || document.activeElement.tagName"))
        controls = ["choose", "camera", "threshold", "mark", "strength", "reset", "csv", "clear"]
        assert [one for one in reached if one in controls][:8] == controls
        tab.run("$('threshold').focus()")
        tab.press("ArrowRight")
        assert tab.run("$('threshold').value") == "1.01"
        tab.run("history_ = []; save()")


@pytest.mark.slow
def test_the_camera_and_the_token(tab):
    with running(detector(), token="secret") as service:
        tab.open(f"http://127.0.0.1:{service.port}/")
        tab.until("!$('token').hidden")
        assert "send the token of this service" in read(tab, "model")
        tab.run("$('secret').value = 'secret'; $('token').requestSubmit()")
        tab.until("model")
        assert tab.run("$('token').hidden")
        tab.run("$('camera').click()")
        tab.until("stream && $('video').videoWidth")
        assert not tab.run("$('shoot').hidden")
        tab.run("$('shoot').click()")
        idle(tab, 1)
        assert tab.run("$('name').textContent").startswith("camera-2")
        assert tab.run("stream") is None
        tab.run("history_ = []; save(); sessionStorage.clear()")


@pytest.mark.slow
def test_the_description_is_drawn(tab):
    with running() as service:
        tab.open(f"http://127.0.0.1:{service.port}/docs")
        tab.until("document.querySelectorAll('h2').length === 5")
        drawn = tab.run("document.body.textContent")
        assert "POST /v1/predict" in drawn
        assert "calibrated_score" in drawn
        assert tab.errors == []
