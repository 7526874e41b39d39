"""A service in a thread with a stand-in for the exported model, and clients for it."""

import contextlib
import http.client
import io
import json
import socket
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from daad_jax.exported import Result
from daad_jax.serve import server as server_lib
from daad_jax.serve.limits import Limits
from daad_jax.serve.model import Model
from daad_jax.serve.service import Service

EXPORTED = Path(__file__).parents[1] / "fixtures" / "exported_format_1.daad"  # 16 px


class Detector:
    """Has the interface of `ExportedDetector`; the score of a picture is its mean.

    Scoring waits while `gate` is cleared. `begun` and `batches` list the sizes of batches whose
    scoring began and ended.
    """

    def __init__(self, digest="0" * 64, threshold=100.0, size=(8, 12), fit="stretch"):
        self.metadata = {
            "hash": digest,
            "image_size": list(size),
            "input_shape": [*size, 1],
            "channels": 1,
            "resize": {"fit": fit, "value_range": "auto"},
            "threshold": threshold,
            "program": {},
        }
        self.batch_sizes, self.difference, self.threshold = (1, 2, 8), 0.0, threshold
        self.gate, self.begun, self.batches = threading.Event(), [], []
        self.gate.set()
        self._size = size

    def prepare(self, picture):
        small = Image.fromarray(picture).resize(self._size[::-1])
        return np.asarray(small)[..., None]

    def score(self, pixels):
        assert pixels.shape[1:] == tuple(self.metadata["input_shape"])
        self.begun.append(len(pixels))
        self.gate.wait(30)
        self.batches.append(len(pixels))
        scores = pixels.mean((1, 2, 3), dtype=np.float64)
        maps = pixels[..., 0].astype(np.float32)
        if self.threshold is None:
            return Result(scores, None, None, None, maps)
        bad = scores >= self.threshold
        return Result(scores, scores / self.threshold, np.full(len(scores), 0.5), bad, maps)


class Running(NamedTuple):
    port: int
    service: Service
    server: server_lib.Server
    thread: threading.Thread

    def send(self, method, path, body=None, headers=None):
        """Sends a request; returns status, headers and body, JSON decoded."""
        return send(self.port, method, path, body, headers)

    def predict(self, body, query="", headers=None):
        return self.send("POST", f"/v1/predict{query}", body, headers)

    def stop(self):
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()


@contextlib.contextmanager
def running(detector=None, token=None, **limits):
    model = Model(Path("part.daad"), detector or Detector())
    service = Service(model, Limits()._replace(**limits))
    bound = server_lib.bind("127.0.0.1", 0)
    server = server_lib.Server(service, token, server_lib.Reload())
    thread = threading.Thread(target=server.run, args=([bound],))
    thread.start()
    one = Running(bound.getsockname()[1], service, server, thread)
    try:
        until(lambda: server.started)
        yield one
    finally:
        model._detector.gate.set()
        one.stop()


def until(reached, seconds=20):
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.005)


def send(port, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        return answer(connection.getresponse())
    finally:
        connection.close()


def answer(response):
    content = response.read()
    if response.getheader("content-type") == "application/json":
        content = json.loads(content)
    return response.status, response.headers, content


def send_raw(port, content, pause=0.0):
    """Sends bytes over a socket, in two parts with a pause between; returns what comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        half = len(content) // 2 if pause else len(content)
        connection.sendall(content[:half])
        time.sleep(pause)
        with contextlib.suppress(OSError):  # the answer may come before the end of the request
            connection.sendall(content[half:])
        parts = []
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                parts.append(part)
        return b"".join(parts)


def picture(value=60, size=(12, 8), kind="PNG", **options):
    """The file of a picture of one grey value."""
    file = io.BytesIO()
    Image.new("L", size, value).save(file, kind, **options)
    return file.getvalue()


def form(*pictures, field="image", end=True):
    """The body of a form with (name, content) pairs, and its headers."""
    parts = [
        f'--edge\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        "Content-Type: image/png\r\n\r\n".encode()
        + content
        + b"\r\n"
        for name, content in pictures
    ]
    body = b"".join(parts) + (b"--edge--\r\n" if end else b"")
    return body, {"Content-Type": "multipart/form-data; boundary=edge"}
