"""Drives headless Chromium over its DevTools protocol."""

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


class Tab:
    """A page of the browser. `requests` lists the addresses that it asked for."""

    def __init__(self, socket):
        self._socket, self._ids, self.requests, self.errors = socket, itertools.count(1), [], []
        for domain in ("Page", "Runtime", "DOM", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            self._note(message)
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    def _note(self, message):
        method, params = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        if method == "Runtime.exceptionThrown":
            self.errors.append(params["exceptionDetails"])
        if method == "Page.javascriptDialogOpening":
            self._socket.send(
                json.dumps(
                    {
                        "id": next(self._ids),
                        "method": "Page.handleJavaScriptDialog",
                        "params": {"accept": True},
                    }
                )
            )

    def run(self, code):
        """The value of an expression; a promise is awaited."""
        found = self.call(
            "Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, code, seconds=30):
        end = time.monotonic() + seconds
        while not self.run(code):
            assert time.monotonic() < end, code
            time.sleep(0.05)

    def open(self, address, width=1280, height=900, dark=False):
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.resize(width, height)
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete'")

    def resize(self, width, height):
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )

    def give_files(self, selector, paths):
        """Chooses files in a file input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[os.fspath(path) for path in paths])

    def drop(self, path, selector):
        """Drops a file on an element, as the mouse does."""
        found = f"document.querySelector('{selector}').getBoundingClientRect()"
        left, top = self.run(f"{found}.x"), self.run(f"{found}.y")
        data = {"items": [], "files": [os.fspath(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=left + 20, y=top + 20, data=data)

    def press(self, key):
        codes = {"Tab": 9, "ArrowRight": 39}
        shared = {"key": key, "windowsVirtualKeyCode": codes[key], "code": key}
        self.call("Input.dispatchKeyEvent", type="keyDown", **shared)
        self.call("Input.dispatchKeyEvent", type="keyUp", **shared)

    def screenshot(self, path):
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        Path(path).write_bytes(base64.b64decode(found["data"]))


@contextlib.contextmanager
def chromium(*arguments):
    """A tab of a new browser. Skips the test without Chromium or websockets."""
    client = pytest.importorskip("websockets.sync.client")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("needs Chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [
                *(program, "--headless=new", "--no-sandbox", "--disable-gpu"),
                *("--remote-debugging-port=0", f"--user-data-dir={folder}"),
                *("--no-first-run", "--disable-dev-shm-usage", *arguments, "about:blank"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            port = _port(Path(folder) / "DevToolsActivePort", process)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
                pages = [one for one in json.loads(answer.read()) if one["type"] == "page"]
            address = pages[0]["webSocketDebuggerUrl"]
            with client.connect(address, max_size=None) as socket:
                yield Tab(socket)
        finally:
            process.kill()
            process.wait()


def _port(path, process):
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError, IndexError, ValueError):
            return int(path.read_text().splitlines()[0])
        time.sleep(0.05)
    pytest.skip("Chromium does not start here")
