"""A thousand malformed and hostile requests, with good ones beside them."""

import collections
import contextlib
import json
import os
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from benchmarks import serve as load
from tests.data.test_bombs import HUGE, INFLATING, packed_zeros, png
from tests.serve.services import EXPORTED, form, picture, send, send_raw

TOKEN = "a-long-secret"
KINDS = {}


def kind(*statuses):
    """Registers what makes one request from a random generator: its head's lines and its body."""

    def register(make):
        KINDS[make.__name__] = make, statuses
        return make

    return register


@kind(422)
def noise(rng):
    return {}, rng.bytes(int(rng.integers(1, 5000)))


@kind(422)
def truncated(rng):
    made = picture(
        int(rng.integers(256)), (64, 64), str(rng.choice(["PNG", "JPEG", "BMP", "WEBP"]))
    )
    return {}, made[: int(rng.integers(1, len(made) - 20))]


@kind(200, 422)  # what is left may be a picture
def changed(rng):
    made = bytearray(picture(int(rng.integers(256)), (64, 64), str(rng.choice(["PNG", "TIFF"]))))
    for at in rng.integers(0, len(made), 8):
        made[at] = rng.integers(256)
    return {}, bytes(made)


@kind(413)
def forty_thousand(rng):
    return {}, png(40_000, 40_000, 8, int(rng.choice([0, 2, 6])), b"")


@kind(413)
def huge(rng):
    return {}, HUGE[rng.integers(len(HUGE))]()


@kind(200, 422)  # what a picture unpacks beyond its size is not unpacked
def inflating(rng):
    return {}, INFLATING[rng.integers(len(INFLATING))]()


@kind(413)
def too_large(rng):
    return {}, bytes(5 << 20)


@kind(415)
def another_type(rng):
    return {"Content-Type": str(rng.choice(["application/json", "text/html", "video/mp4"]))}, b"{}"


@kind(415)
def packed(rng):
    return {"Content-Encoding": "deflate"}, packed_zeros()


def some_form(rng):
    return form(*[("a" * int(rng.integers(1, 50)), picture())] * int(rng.integers(1, 9)))


@kind(400)
def truncated_form(rng):
    body, headers = some_form(rng)
    return headers, body[: int(rng.integers(0, len(body) - 4))]


@kind(200, 400, 413, 422)  # some pictures may be whole
def changed_form(rng):
    body, headers = some_form(rng)
    at = int(rng.integers(0, len(body)))
    return headers, body[:at] + rng.bytes(40) + body[at:]


@kind(413)
def many_pictures(rng):
    body, headers = form(*[("a", picture())] * 9)
    return headers, body


@kind(401)
def wrong_token(rng):
    token = str(rng.choice([TOKEN[:-1], TOKEN + "x", "", "é", "x" * 5000]))
    return {"Authorization": f"Bearer {token}".encode()}, picture()


@kind(400, 431)
def no_http(rng):
    return None, rng.choice([rng.bytes(200), b"GET / HTTP/9.9\r\n\r\n", b"A: b\r\n" * 20_000])


@kind(408)
def slow_head(rng):
    return None, b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nX-Slow: "


@kind(408)
def slow_body(rng):
    return None, (
        b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer "
        + TOKEN.encode()
        + b"\r\nContent-Length: 5000\r\n\r\n"
        + rng.bytes(50)
    )


def request(port, make, statuses, seed):
    """Sends one request; returns its status if that is as expected and says why."""
    headers, body = make(np.random.default_rng(seed))
    if headers is None:
        found = send_raw(port, bytes(body))
        status = int(found[9:12] or 0)
        if status in (408, 431):
            assert json.loads(found.partition(b"\r\n\r\n")[2])["detail"]
    else:
        headers = {"Authorization": f"Bearer {TOKEN}", **headers}
        status, sent, said = send(port, "POST", "/v1/predict", body, headers)
        if status == 503:
            assert int(sent["Retry-After"]) > 0
        if status != 200:
            assert re.fullmatch(r"[^\n]+", said["detail"])
    assert status in (*statuses, 503), (make.__name__, seed, status)
    return status


@pytest.mark.slow
def test_a_thousand_hostile_requests(tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    service = load.start(
        str(EXPORTED),
        *(f"--token_file={tmp_path / 'token'}", "--max_body_mib=4", "--max_pictures=8"),
        *("--timeout=5", "--queue=32", f"--cache_dir={os.environ['JAX_COMPILATION_CACHE_DIR']}"),
    )
    good, done, headers = collections.Counter(), threading.Event(), bearer()

    def use():
        while not done.is_set():
            status, _, rows = send(service.port, "POST", "/v1/predict", picture(80), headers)
            good[status, rows[0]["score"] if status == 200 else None] += 1
            time.sleep(0.02)

    try:
        with contextlib.ExitStack() as flood, ThreadPoolExecutor(24) as pool:
            beside = [pool.submit(use) for _ in range(2)]
            for _ in range(400):  # connections that say nothing
                address = ("127.0.0.1", service.port)
                flood.enter_context(socket.create_connection(address))
            each = -(-1000 // len(KINDS))
            plans = [(*KINDS[name], seed) for seed in range(each) for name in KINDS]
            try:
                statuses = pool.map(lambda plan: request(service.port, *plan), plans)
                found = collections.Counter(statuses)
            finally:
                done.set()
            for one in beside:
                one.result()
        assert found.total() >= 1000
        assert len(good) == 1, good  # every good request had the same answer
        assert next(iter(good))[0] == 200
        assert send(service.port, "GET", "/healthz")[0] == 200
        text = send(service.port, "GET", "/metrics", headers=headers)[2].decode()
        assert "daad_pictures_in_progress 0.0" in text
        print(found, good, re.findall(r"process_resident_memory_bytes (\S+)", text))
    finally:
        assert load.stop(service) == 0


def bearer():
    return {"Authorization": f"Bearer {TOKEN}"}
