import functools
import hashlib
import http.server
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from daad_jax.data import originals
from daad_jax.data.sources import cifar10, mnist
from daad_jax.errors import DataError
from tests.data.conftest import check_against

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Serves files on this machine in place of the original addresses."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()

        def serve(files):
            infos = {}
            for file in files:
                content = file.read_bytes()
                (folder / file.name).write_bytes(content)
                url = f"http://127.0.0.1:{running.server_port}/{file.name}"
                checksum = hashlib.sha256(content).hexdigest()
                infos[url] = tfds.download.checksums.UrlInfo(
                    size=len(content), checksum=checksum, filename=file.name
                )
            monkeypatch.setattr(originals, "_url_infos", lambda source: infos)
            return folder

        yield serve
        running.shutdown()


def test_mnist_is_downloaded_once(load, tiny_mnist, serve, tmp_path):
    root, splits = tiny_mnist
    served = serve(root.iterdir())
    check_against(load("2", source="mnist"), splits, 2, mnist.CLASSES)
    for file in served.iterdir():
        file.unlink()
    check_against(load("3", source="mnist"), splits, 3, mnist.CLASSES)
    kept = tmp_path / "tfds" / "originals" / "mnist"
    assert sorted(kept.iterdir()) == [kept / name for name in sorted(sum(mnist.FILES.values(), ()))]


def test_cifar10_is_downloaded(load, tiny_cifar10, serve, tmp_path):
    root, splits = tiny_cifar10
    archive = tmp_path / cifar10.ARCHIVE
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(root / cifar10.FOLDER, arcname=cifar10.FOLDER)
    serve([archive])
    check_against(load("ship", source="cifar10"), splits, 8, cifar10.CLASSES)


def test_a_download_with_another_checksum_is_an_error(load, tiny_mnist, serve, tmp_path):
    root, splits = tiny_mnist
    served = serve(root.iterdir())
    (served / "t10k-labels-idx1-ubyte.gz").write_bytes(b"something else")
    with pytest.raises(DataError, match=r"^data\.root: MNIST cannot be downloaded to") as caught:
        load("2", source="mnist")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "tfds" / "originals" / "mnist").glob("t10k*"))
    serve(root.iterdir())
    check_against(load("2", source="mnist"), splits, 2, mnist.CLASSES)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(("source", "file"), [("mnist", "t10k-"), ("cifar10", cifar10.ARCHIVE)])
def test_without_a_network_the_error_names_the_files(load, source, file):
    with pytest.raises(DataError, match=r"^data\.root: .* cannot be reached .*no route") as caught:
        load("2", source=source)
    assert file in str(caught.value)
    assert "--config.data.root=FOLDER" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_urls_of_the_library_have_the_expected_file_names():
    for source, files in (("mnist", sum(mnist.FILES.values(), ())), ("cifar10", [cifar10.ARCHIVE])):
        names = {url.rsplit("/", 1)[1] for url in originals._url_infos(source)}
        assert names == set(files)


def test_reading_original_files_imports_neither_library(tiny_mnist):
    code = f"""
import sys
from daad_jax.config import DataConfig
from daad_jax.data import load_dataset
config = DataConfig(source="mnist", root={str(tiny_mnist[0])!r}, image_size=16)
assert len(load_dataset(config, "0").test) == 30
assert not {{"tensorflow_datasets", "tensorflow", "jax", "flax"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
