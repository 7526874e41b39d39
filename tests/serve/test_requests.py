"""Answers to good and to bad requests."""

import base64
import io
import re
import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from daad_jax.scoring.predictions import COLUMNS
from daad_jax.serve import app as app_lib
from daad_jax.serve import server as server_lib
from tests.data.test_bombs import HUGE, INFLATING, png
from tests.serve.services import Detector, form, picture, running, send_raw, until


@pytest.fixture(scope="module")
def one():
    with running(body_bytes=4 << 20, pixels=1_000_000, pictures=3, queue=8) as service:
        yield service


def test_rows_have_the_columns_of_the_predictions(one):
    body, headers = form(("a.png", picture(60)), ("b.jpg", picture(200, kind="JPEG")))
    status, _, rows = one.predict(body, headers=headers)
    assert status == 200
    assert [tuple(row) for row in rows] == [COLUMNS, COLUMNS]
    assert rows[0] == {
        "path": "a.png",
        "score": 60.0,
        "calibrated_score": 0.6,
        "p_value": 0.5,
        "defective": False,
        "error": None,
    }
    assert (rows[1]["path"], rows[1]["score"], rows[1]["defective"]) == ("b.jpg", 200.0, True)


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream", None, "image/jpeg"])
def test_the_body_can_be_the_picture(one, kind):
    headers = {} if kind is None else {"Content-Type": kind}
    status, sent, rows = one.predict(picture(30), headers=headers)
    assert (status, rows[0]["path"], rows[0]["score"]) == (200, "image", 30.0)
    assert sent["X-Model"] == "0" * 12


def test_without_a_threshold_there_are_scores():
    with running(Detector(threshold=None)) as service:
        _, _, (row,) = service.predict(picture(60))
        assert row["score"] == 60
        assert row["calibrated_score"] is row["p_value"] is row["defective"] is None


def test_the_map_is_a_png_of_what_the_picture_fills():
    pixels = np.arange(8 * 6, dtype=np.uint8).reshape(8, 6)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    with running(Detector(size=(8, 12), fit="pad")) as service:
        _, _, (row,) = service.predict(file.getvalue(), "?map=true")
    drawn = Image.open(io.BytesIO(base64.b64decode(row["map"].partition("base64,")[2])))
    values = np.asarray(drawn).astype(np.float64) / 65535 * row["map_maximum"]
    stretched = np.asarray(Image.fromarray(pixels).resize((12, 8)))
    assert values.shape == (8, 6)
    np.testing.assert_allclose(values, stretched[:, 3:9], atol=1e-3)


def test_a_bad_picture_among_good_ones_is_a_row_with_its_error(one):
    body, headers = form(("good.png", picture()), ("bad.png", picture()[:40]))
    status, _, (good, bad) = one.predict(body, headers=headers)
    assert (status, good["error"], good["score"]) == (200, None, 60.0)
    assert bad["score"] is None
    assert "not a whole image" in bad["error"]


BAD = {
    "no body": (b"", {}, 400, "the body is empty"),
    "no picture": (b"hello", {}, 422, "image: is not a whole image file"),
    "json": (b"{}", {"Content-Type": "application/json"}, 415, "content-type: application/json"),
    "packed": (picture(), {"Content-Encoding": "gzip"}, 415, "content-encoding"),
    "truncated": (picture()[:-20], {}, 422, "not a whole image"),
    "40,000 x 40,000": (png(40_000, 40_000, 8, 2, b""), {}, 413, "too many pixels"),
    "too many pixels": (picture(size=(1500, 1000)), {}, 413, "has 1500 x 1000 pixels"),
    "too many bytes": (bytes((4 << 20) + 1), {}, 413, "the body has more than 4 MiB"),
    "a gif": (picture(kind="GIF"), {}, 422, "image: "),
    "too many scans": (picture(kind="JPEG") + b"\xff\xda" * 101, {}, 422, "more than 100 scans"),
    "another field": (*form(("a", picture()), field="file"), 400, "file: no such field"),
    "no name": (*form(("", picture())), 400, "image: has no file name"),
    "too many pictures": (*form(*[("a", picture())] * 4), 413, "Too many files"),
    "no end": (*form(("a", picture()), end=False), 400, "ends before its last boundary"),
    "no form": (b"hello", form()[1], 400, "multipart: "),
    "no boundary": (b"", {"Content-Type": "multipart/form-data"}, 400, "Missing boundary"),
    "an empty form": (*form(), 400, "send at least one picture"),
    "two bad pictures": (*form(("a", b"x"), ("b", b"y")), 422, "; b: is not a whole image"),
    "no character set": (
        form(("a", picture()))[0],
        {"Content-Type": "multipart/form-data; boundary=edge; charset=undefined"},
        400,
        "content-type: names no character set",
    ),
    "a name of two lines": (*form(("a\n\u202e", b"x")), 422, r"a\n\u202e: is not a whole image"),
} | {make.__name__: (make(), {}, 413, "too many pixels") for make in HUGE}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_gets_one_line_and_good_ones_go_on(one, case):
    body, headers, expected, message = BAD[case]
    status, _, said = one.predict(body, headers=headers)
    assert status == expected
    assert message in said["detail"]
    assert said["detail"].isprintable()
    assert one.predict(picture())[0] == 200
    assert one.service._pictures == 0


@pytest.mark.parametrize("kind", ["BMP", "TIFF"])
def test_only_a_jpeg_has_scans(one, kind):
    file = io.BytesIO()
    pixels = np.tile(np.array([255, 218], np.uint8), (100, 60))
    Image.fromarray(pixels).save(file, kind)
    assert file.getvalue().count(b"\xff\xda") > 100
    status, _, rows = one.predict(file.getvalue())
    assert (status, rows[0]["error"]) == (200, None)


def test_metadata_that_point_outside_of_the_file_are_passed_over(one):
    far = b"II+\0\x08\0\0\0" + (1 << 63).to_bytes(8, "little") + bytes(8)
    status, _, (row,) = one.predict(picture(60, exif=b"Exif\0\0" + far))
    assert (status, row["score"]) == (200, 60)
    assert one.predict(far)[0] == 422


def test_a_score_that_is_not_finite_is_a_row_with_an_error():
    class Broken(Detector):
        def score(self, pixels):
            result = super().score(pixels)
            nothing = np.full(len(pixels), np.nan)
            maps = np.full_like(result.anomaly_map, np.nan)
            return result._replace(decision_score=nothing, anomaly_map=maps)

    with running(Broken()) as service:
        status, _, (row,) = service.predict(picture(), "?map=true")
        assert (status, row["error"], row["map"]) == (200, "its score is not finite", None)
        metrics = service.send("GET", "/metrics")[2].decode()
        assert 'daad_pictures_total{found="unusable"} 1.0' in metrics


def test_the_head_of_an_answer_does_not_grow(one):
    counts = [len(one.send("GET", "/")[1]) for _ in range(3)]
    assert counts == [counts[0]] * 3


def test_a_client_that_reads_nothing_is_dropped(monkeypatch):
    monkeypatch.setattr(server_lib, "_WRITE_SECONDS", 0.3)
    with running(queue=3, pictures=1) as service:
        request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        with socket.create_connection(("127.0.0.1", service.port)) as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.sendall(request * 400)
            until(lambda: service.server.server_state.connections)
            until(lambda: not service.server.server_state.connections)
        assert service.predict(picture())[0] == 200


def test_a_connection_whose_answer_came_early_ends(monkeypatch):
    monkeypatch.setattr(server_lib, "_HEAD_SECONDS", 0.3)
    with (
        running(token="secret") as service,
        socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection,
    ):
        head = b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n"
        connection.sendall(head)
        assert b" 401 " in connection.recv(65536)
        connection.sendall(bytes(50))
        while connection.recv(65536):
            pass


@pytest.mark.parametrize("make", INFLATING)
def test_what_a_picture_unpacks_beyond_its_size_is_not_unpacked(one, make):
    assert one.predict(make())[2][0]["error"] is None


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/predict", 405),
        ("POST", "/v1/model", 405),
        ("GET", "/nothing", 404),
        ("POST", "/v1/predict?map=perhaps", 422),
        ("GET", "/../../etc/passwd", 404),
    ],
)
def test_wrong_paths_and_methods(one, method, path, status):
    found, _, said = one.send(method, path, picture())
    assert found == status
    assert isinstance(said["detail"], str)


def test_a_body_longer_than_it_said_or_chunked_without_end_is_refused(one):
    head = "POST /v1/predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n" % (1 << 20) + bytes(1 << 20) + b"\r\n"
    assert b" 413 " in send_raw(one.port, head.encode() + chunk * 6).partition(b"\r\n")[0]
    assert one.predict(picture())[0] == 200


def test_a_slow_body_and_a_slow_head_end(monkeypatch):
    monkeypatch.setattr(server_lib, "_HEAD_SECONDS", 0.3)
    monkeypatch.setattr(server_lib, "_REST_SECONDS", 0.3)
    with running(seconds=0.3) as service:
        body = b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n"
        answered = send_raw(service.port, body)
        assert b" 408 " in answered.partition(b"\r\n")[0]
        assert b"the body took more than 0.3 s" in answered
        assert send_raw(service.port, b"POST /v1/pre").startswith(b"HTTP/1.1 408 Request Timeout")
        assert send_raw(service.port, b"") == b""
        assert service.predict(picture())[0] == 200


def test_a_head_without_end_is_refused(one):
    lines = b"".join(b"X-%d: %s\r\n" % (number, b"a" * 1000) for number in range(100))
    found = send_raw(one.port, b"GET / HTTP/1.1\r\nHost: a\r\n" + lines)
    assert found.startswith(b"HTTP/1.1 431 ")
    assert send_raw(one.port, b"\x16\x03\x01 no http \r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_a_full_queue_answers_503_and_the_others_are_served():
    detector = Detector()
    with running(detector, queue=3) as service, ThreadPoolExecutor(8) as pool:
        detector.gate.clear()
        waiting = [pool.submit(service.predict, picture(value)) for value in (10, 20, 30)]
        until(lambda: service.service._pictures == 3)
        status, headers, said = service.predict(picture())
        assert (status, headers["Retry-After"]) == (503, "1")
        assert said["detail"] == "3 pictures are waiting; send it again later"
        assert service.send("GET", "/healthz")[0] == 200
        detector.gate.set()
        assert [one.result()[2][0]["score"] for one in waiting] == [10, 20, 30]
        assert service.predict(picture())[0] == 200


def test_too_many_bytes_and_too_many_requests_at_once_answer_503():
    detector = Detector()
    with running(detector, body_bytes=1 << 20, queue=100) as service, ThreadPoolExecutor(9) as pool:
        detector.gate.clear()
        large = picture() + bytes((1 << 20) - 1000)
        waiting = [pool.submit(service.predict, large) for _ in range(8)]
        until(lambda: service.service._pictures == 8)
        status, _, said = service.predict(large)
        assert (status, said["detail"]) == (503, "too many large requests at once; try later")
        detector.gate.set()
        assert [one.result()[0] for one in waiting] == [200] * 8
    with (
        running(detector, queue=1, pictures=1, seconds=1) as service,
        ThreadPoolExecutor(9) as pool,
    ):
        detector.gate.clear()
        slow = b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1234"
        waiting = [pool.submit(send_raw, service.port, slow, 1.0) for _ in range(2)]
        until(lambda: len(service.server.server_state.tasks) == 2)
        status, headers, _ = service.predict(picture())
        assert (status, headers["Retry-After"]) == (503, "1")
        assert service.send("GET", "/readyz")[0] == 200


def test_an_answer_that_takes_too_long_is_503():
    detector = Detector()
    with running(detector, seconds=0.3) as service:
        detector.gate.clear()
        status, _, said = service.predict(picture())
        assert (status, said["detail"]) == (503, "no answer within 0.3 s")
        detector.gate.set()
        assert service.predict(picture())[0] == 200


def test_a_failure_to_score_is_500_and_the_log_has_it(capfd):
    detector = Detector()
    detector.score = lambda pixels: 1 / 0
    with running(detector) as service:
        status, _, said = service.predict(picture())
        assert (status, said["detail"]) == (500, "scoring failed; the service's log says why")
        del detector.score
        assert service.predict(picture())[0] == 200
    assert "error: scoring failed: ZeroDivisionError" in capfd.readouterr().err


def test_only_the_token_opens():
    with running(token="a-secret") as service:
        for given in ("", "Bearer ", "Bearer a-secre", "Basic a-secret", "Bearer a-secret2", "é"):
            headers = {"Authorization": given.encode()}
            for method, path in [
                ("POST", "/v1/predict"),
                ("GET", "/v1/model"),
                ("GET", "/metrics"),
            ]:
                status, sent, said = service.send(method, path, picture(), headers)
                assert (status, sent["WWW-Authenticate"]) == (401, "Bearer")
                assert "Authorization: Bearer TOKEN" in said["detail"]
        assert service.predict(picture(), headers={"Authorization": "Bearer a-secret"})[0] == 200
        for path in app_lib._OPEN:
            assert service.send("GET", path)[0] == 200


def test_the_model_the_metrics_and_the_description(one):
    described = one.send("GET", "/v1/model")[2]
    assert (described["file"], described["threshold"]) == ("part.daad", 100.0)
    assert "program" not in described
    before = one.send("GET", "/metrics")[2].decode()
    one.predict(picture(200))
    after = one.send("GET", "/metrics")[2].decode()
    for name, more in [
        ('daad_requests_total{path="/v1/predict",status="200"}', 1),
        ('daad_pictures_total{found="defective"}', 1),
        ("daad_batch_size_count", 1),
        ("daad_pictures_in_progress", 0),
    ]:
        assert _metric(after, name) == _metric(before, name) + more
    paths = one.send("GET", "/openapi.json")[2]["paths"]
    assert set(paths) == {"/v1/predict", "/v1/model", "/healthz", "/readyz", "/metrics"}
    assert "multipart/form-data" in paths["/v1/predict"]["post"]["requestBody"]["content"]


def _metric(text, name):
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_ask_nothing_of_other_places(one, path):
    status, headers, content = one.send("GET", path)
    assert status == 200
    assert (
        re.findall(rb"""(?:src|href)=["'](?!data:,|openapi.json|\./)[^"']*|url\(""", content) == []
    )
    assert b"://" not in content
    assert "default-src 'none'" in headers["Content-Security-Policy"]
