"""Pictures of concurrent requests are scored together, each by the model it was prepared for."""

import asyncio
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from daad_jax.errors import DataError
from daad_jax.serve import model as model_lib
from daad_jax.serve import service as service_lib
from daad_jax.serve.batching import Batcher
from daad_jax.serve.model import Model
from tests.serve.services import Detector, form, picture, running, until


def model(detector):
    return Model(Path("part.daad"), detector)


def pixels(value):
    return np.full((8, 12, 1), value, np.uint8)


def test_batches_have_compiled_sizes_and_each_gets_its_own_score():
    detector, measured = Detector(), []

    async def run():
        batcher = Batcher(lambda size, seconds: measured.append(size))
        used = model(detector)
        found = await asyncio.gather(*(batcher.score(used, pixels(one)) for one in range(22)))
        again = await batcher.score(used, pixels(7))
        batcher.close()
        return [one.decision_score for one in [*found, again]]

    assert asyncio.run(run()) == [*range(22), 7]
    assert detector.batches == measured == [8, 8, 2, 2, 2, 1]


def test_pictures_of_two_models_are_not_mixed_and_the_cancelled_are_left_out():
    first, second = Detector(size=(8, 12)), Detector(size=(4, 4), threshold=1.0)

    async def run():
        batcher = Batcher(lambda size, seconds: None)
        models = model(first), model(second)
        tasks = [
            asyncio.create_task(batcher.score(models[0], pixels(10))),
            asyncio.create_task(batcher.score(models[0], pixels(20))),
            asyncio.create_task(batcher.score(models[1], np.full((4, 4, 1), 30, np.uint8))),
            asyncio.create_task(batcher.score(models[0], pixels(40))),
        ]
        await asyncio.sleep(0)
        tasks[1].cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        batcher.close()
        return found

    found = asyncio.run(run())
    assert isinstance(found.pop(1), asyncio.CancelledError)
    assert [(one.decision_score, one.calibrated_score) for one in found] == [
        (10, 0.1),
        (30, 30),
        (40, 0.4),
    ]
    assert (first.batches, second.batches) == ([1, 1], [1])


def test_requests_that_wait_together_are_one_batch():
    detector = Detector()
    with running(detector) as service, ThreadPoolExecutor(9) as pool:
        detector.gate.clear()
        waiting = [pool.submit(service.predict, picture(0))]
        until(lambda: detector.begun == [1])
        waiting += [pool.submit(service.predict, picture(value)) for value in range(1, 9)]
        until(lambda: len(service.service._batcher) == 8)
        detector.gate.set()
        assert [one.result()[2][0]["score"] for one in waiting] == list(range(9))
        assert detector.batches == [1, 8]


def test_a_new_model_answers_new_requests_and_the_old_one_those_that_came_before(
    monkeypatch, capfd
):
    old, new = Detector("a" * 64), Detector("b" * 64, size=(4, 4), threshold=50.0)
    with running(old) as service, ThreadPoolExecutor(10) as pool:
        old.gate.clear()
        waiting = [pool.submit(service.predict, picture(80)) for _ in range(9)]
        until(lambda: service.service._pictures == 9)
        monkeypatch.setattr(service_lib, "load", lambda path: Model(path, new))
        service.server._reload.asked = True
        until(lambda: service.service.model.hash == "b" * 12)
        late = pool.submit(service.predict, picture(80))
        until(lambda: service.service._pictures == 10)
        old.gate.set()
        assert [one.result()[1]["X-Model"] for one in waiting] == ["a" * 12] * 9
        assert late.result()[1]["X-Model"] == "b" * 12
        assert late.result()[2][0]["calibrated_score"] == 1.6
        assert service.send("GET", "/v1/model")[2]["threshold"] == 50
    assert "loaded part.daad (bbbbbbbbbbbb)" in capfd.readouterr().out


def test_a_model_that_does_not_run_here_is_a_data_error(monkeypatch):
    def fail(_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of\nmemory")

    detector = Detector()
    monkeypatch.setattr(detector, "score", fail)
    monkeypatch.setattr(model_lib, "load_exported", lambda path: detector)
    message = r"part.daad: cannot run here in batches of 1 \(RESOURCE_EXHAUSTED: out of memory\)"
    with pytest.raises(DataError, match=message):
        model_lib.load(Path("part.daad"))


@pytest.mark.parametrize("kind", ["WEBP", "JPEG", "PNG"])
def test_a_picture_is_turned_upright_once(kind):
    pixels, file, tags = np.zeros((8, 12), np.uint8), io.BytesIO(), Image.Exif()
    pixels[:4], tags[274] = 255, 6  # the top is white; upright, it is on the right
    Image.fromarray(pixels).save(file, kind, exif=tags)
    prepared = model(Detector(size=(12, 8))).prepare(file.getvalue(), "a", 10**6).pixels[..., 0]
    assert prepared[:, 4:].mean() > 200 > 50 > prepared[:, :4].mean()


def test_a_file_that_cannot_be_loaded_leaves_the_model(monkeypatch, capfd):
    def load(path):
        raise DataError(f"{path}: is damaged")

    monkeypatch.setattr(service_lib, "load", load)
    with running() as service:
        service.server._reload.asked = True
        metrics = 'daad_model_loads_total{outcome="failed"} 1.0'
        until(lambda: metrics in service.send("GET", "/metrics")[2].decode())
        assert service.predict(*form(("a", picture()))[:1], headers=form()[1])[0] == 200
    assert capfd.readouterr().err == "error: part.daad: is damaged; the model before stays\n"


def test_one_request_is_answered_by_one_model():
    detector = Detector()
    with running(detector) as service:
        body, headers = form(*((f"{value}.png", picture(value)) for value in range(20)))
        rows = service.predict(body, headers=headers)[2]
        assert [(row["path"], row["score"]) for row in rows] == [
            (f"{value}.png", value) for value in range(20)
        ]
        assert sum(detector.batches) == 20


@pytest.mark.parametrize("size", [(8, 12), (4, 4)])
def test_pictures_are_prepared_by_the_detector(size):
    prepared = model(Detector(size=size)).prepare(picture(9), "a.png", 10**6)
    assert prepared.pixels.shape == (*size, 1)
    assert (prepared.box.height, prepared.box.width) == size
