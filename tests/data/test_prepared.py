import functools
import hashlib
import http.server
import io
import json
import subprocess
import sys
import tarfile
import threading
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from daad_jax.config import DataConfig
from daad_jax.data import builders, images, list_categories, load_dataset, originals, prepared
from daad_jax.errors import BadFileError, ConfigError, DataError

REPOSITORY = Path(__file__).parents[2]
CIFAR10_CLASSES = [
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
]


@pytest.fixture
def load(make_config, tmp_path):
    """Loads a set at its own size, prepared under the test's folder."""

    def load(category, cache=None, **fields):
        size, channels = (32, 3) if fields["source"] == "cifar10" else (28, 1)
        fields = {"image_size": size, "channels": channels, **fields}
        fields = {"tfds_dir": str(tmp_path / "tfds"), "category": category, **fields}
        return load_dataset(make_config(**fields), category, cache)

    return load


@pytest.fixture
def offline(monkeypatch):
    def refuse(request, timeout):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.fixture
def server(tmp_path):
    """A web server on this machine: its folder and its address."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def url_infos(folder, address):
    return {
        f"{address}/{file.name}": tfds.download.checksums.UrlInfo(
            size=file.stat().st_size,
            checksum=hashlib.sha256(file.read_bytes()).hexdigest(),
            filename=file.name,
        )
        for file in folder.iterdir()
    }


def check_against(dataset, splits, normal, names):
    """The data set has exactly the pixels and classes of the original splits."""
    pixels, labels = splits["train"]
    own = pixels[labels == normal]
    both = np.concatenate([dataset.train.images, dataset.calibration.images])
    np.testing.assert_array_equal(both.squeeze(), own)
    pixels, labels = splits["test"]
    np.testing.assert_array_equal(dataset.test.images.squeeze(), pixels)
    expected = ["good" if label == normal else names[label] for label in labels]
    assert dataset.test.kinds == expected
    assert len(set(dataset.test.names)) == len(pixels)


@pytest.mark.parametrize("mapped", [False, True])
def test_mnist_from_files(load, tiny_mnist, tmp_path, mapped):
    root, splits = tiny_mnist
    limit, cache = (0, tmp_path / "cache") if mapped else (4096, None)
    dataset = load(
        "3",
        cache,
        source="mnist",
        root=str(root),
        calibration_fraction=0.3,
        memory_limit_mb=limit,
    )
    check_against(dataset, splits, 3, list("0123456789"))
    assert (len(dataset.train), len(dataset.calibration)) == (2, 2)
    assert isinstance(dataset.test.images, np.memmap) == mapped


def test_cifar10_from_files(load, tiny_cifar10):
    root, splits = tiny_cifar10
    dataset = load("5", source="cifar10", root=str(root))
    check_against(dataset, splits, 5, CIFAR10_CLASSES)
    assert dataset.category == "dog"
    np.testing.assert_array_equal(
        load("dog", source="cifar10", root=str(root)).test.images, dataset.test.images
    )


def test_file_sizes_are_the_pngs(load, tiny_mnist):
    root, splits = tiny_mnist
    sizes = load("0", source="mnist", root=str(root)).test.file_sizes
    for size, pixels in zip(sizes, splits["test"][0], strict=True):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        assert size == buffer.tell()


def test_prepared_once(load, tiny_mnist, monkeypatch):
    root, splits = tiny_mnist
    load("0", source="mnist", root=str(root))
    monkeypatch.setattr(builders.DaadMnist, "download_and_prepare", None)
    check_against(load("1", source="mnist", root=str(root)), splits, 1, list("0123456789"))


def test_other_files_are_not_answered_with_older_ones(load, tiny_mnist):
    root, splits = tiny_mnist
    load("0", source="mnist", root=str(root))
    file = root / "t10k-images-idx3-ubyte.gz"
    other = dict(splits, test=(255 - splits["test"][0], splits["test"][1]))
    content = originals.gzip.decompress(file.read_bytes())[:16] + other["test"][0].tobytes()
    file.write_bytes(originals.gzip.compress(content))
    check_against(load("0", source="mnist", root=str(root)), other, 0, list("0123456789"))


def test_failed_preparation_is_not_taken_for_a_finished_one(load, tiny_mnist, monkeypatch):
    root, splits = tiny_mnist
    with monkeypatch.context() as patch:
        patch.setattr(builders.Image, "fromarray", lambda pixels: 1 / 0)
        with pytest.raises(DataError, match=r"^data\.root: MNIST cannot be prepared under"):
            load("0", source="mnist", root=str(root))
    check_against(load("0", source="mnist", root=str(root)), splits, 0, list("0123456789"))


def test_damaged_original_is_named(load, tiny_mnist):
    root, _ = tiny_mnist
    (root / "train-images-idx3-ubyte.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match=r"^train-images-idx3-ubyte\.gz: is not a whole gzip"):
        load("0", source="mnist", root=str(root))


def test_another_process_may_be_faster(load, tiny_mnist, monkeypatch):
    root, splits = tiny_mnist
    prepare = builders.DaadMnist.download_and_prepare

    def lose_the_race(self, **arguments):
        prepare(self, **arguments)
        raise OSError("Directory not empty")

    monkeypatch.setattr(builders.DaadMnist, "download_and_prepare", lose_the_race)
    check_against(load("0", source="mnist", root=str(root)), splits, 0, list("0123456789"))


def test_mnist_downloaded(load, tiny_mnist, server, monkeypatch):
    root, splits = tiny_mnist
    folder, address = server
    for file in root.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(builders.DaadMnist, "url_infos", url_infos(folder, address))
    check_against(load("2", source="mnist"), splits, 2, list("0123456789"))


def test_cifar10_downloaded(load, tiny_cifar10, server, monkeypatch):
    root, splits = tiny_cifar10
    folder, address = server
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz") as tar:
        tar.add(root / "cifar-10-batches-bin", arcname="cifar-10-batches-bin")
    monkeypatch.setattr(builders.DaadCifar10, "url_infos", url_infos(folder, address))
    check_against(load("ship", source="cifar10"), splits, 8, CIFAR10_CLASSES)


def test_download_with_another_checksum_is_refused(load, tiny_mnist, server, monkeypatch):
    root, _ = tiny_mnist
    folder, address = server
    for file in root.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    infos = url_infos(folder, address)
    monkeypatch.setattr(builders.DaadMnist, "url_infos", infos)
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(b"something else")
    with pytest.raises(DataError, match=r"^data\.root: MNIST cannot be prepared") as caught:
        load("2", source="mnist")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(("source", "file"), [("mnist", "t10k-"), ("cifar10", "test_batch.bin")])
def test_no_network(load, source, file):
    with pytest.raises(DataError, match=r"^data\.root: .* cannot be reached .*no route") as caught:
        load("2", source=source)
    assert file in str(caught.value)
    assert "--config.data.root=FOLDER" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_categories(make_config):
    for source, names in (("mnist", list("0123456789")), ("cifar10", CIFAR10_CLASSES)):
        assert list_categories(make_config(source=source, category="all")) == names
        assert list_categories(make_config(source=source, category="9")) == [names[9]]


def test_neither_library_is_imported_without_need(tiny_mnist, tmp_path):
    root, _ = tiny_mnist
    code = f"""
import sys
import daad_jax.cli
assert not {{"tensorflow_datasets", "tensorflow"}} & set(sys.modules)
from daad_jax import config as config_lib
from daad_jax.data import load_dataset
config = config_lib.Config()
config.data.source, config.data.root, config.train.batch_size = "mnist", {str(root)!r}, 1
config.data.image_size, config.data.tfds_dir = 16, {str(tmp_path / "tfds")!r}
assert len(load_dataset(config, "0").test) == 30
assert "tensorflow_datasets" in sys.modules
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


class FabricatedShapes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Three classes of colour images, some of them JPEG, in the library's own shuffled order."""

    VERSION = tfds.core.Version("1.2.0")
    names = ("round", "long/thin", "good")
    splits = ("train", "test")
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=names),
            "id": tfds.features.Scalar(np.int64),
        }
    )

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=self.features)

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in self.splits}

    def _generate_examples(self, split):
        for index in range(24):
            pixels = np.full((10 + index, 12, 3), index * 10, np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, format="JPEG" if index % 2 else "PNG")
            buffer.seek(0)
            example = {"image": buffer, "label": index % 3, "id": index}
            yield index, {key: example[key] for key in self.features}


def label_test_split(builder, split, label):
    for index, example in FabricatedShapes._generate_examples(builder, split):
        yield index, example | ({"label": label} if split == "test" else {})


@pytest.fixture
def make_set(tmp_path):
    """Prepares the fabricated set, with changes, where the library finds it by its name."""

    def make(**changes):
        kind = type(FabricatedShapes)(
            "FabricatedShapes", (FabricatedShapes,), changes, skip_registration=True
        )
        builder = kind(data_dir=tmp_path / "tfds", file_format="array_record")
        builder.download_and_prepare()
        return Path(builder.data_dir)

    return make


@pytest.fixture
def load_named(load):
    return functools.partial(load, source="tfds", name="fabricated_shapes", channels=3)


def test_any_set_by_name(make_set, load_named):
    make_set()
    dataset = load_named("long/thin", calibration_fraction=0.25)
    assert (len(dataset.train), len(dataset.calibration), len(dataset.test)) == (6, 2, 24)
    values = np.concatenate([dataset.train.images, dataset.calibration.images]).mean((1, 2, 3))
    np.testing.assert_allclose(sorted(values), 10 * np.arange(1, 24, 3), atol=2)
    classes = np.rint(dataset.test.images.mean((1, 2, 3)) / 10).astype(int) % 3
    expected = np.array(["round", "good", "class good"])[classes]
    assert dataset.test.kinds == list(expected)
    assert np.sum(dataset.test.labels) == 16


def test_classes_of_a_set(make_set, make_config, tmp_path):
    make_set()
    config = make_config(source="tfds", name="fabricated_shapes", tfds_dir=str(tmp_path / "tfds"))
    assert list_categories(config) == ["round", "long/thin", "good"]
    config.data.category = "2"
    assert list_categories(config) == ["good"]
    config.data.category = "long"
    with pytest.raises(ConfigError, match=r"^data\.category: no class 'long'"):
        list_categories(config)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnsit", r"^data\.name: tensorflow-datasets has no 'mnsit'; did you mean 'mnist'\?$"),
        ("qqqqqq", r"^data\.name: tensorflow-datasets has no 'qqqqqq'; see https://"),
        ("../mnist", r"^data\.name: '\.\./mnist' cannot be opened"),
        ("mnist:0.0.1", r"^data\.name: 'mnist:0\.0\.1' cannot be opened"),
        ("fashion_mnist", r"^data\.name: fashion_mnist is not prepared yet .*copy the set"),
    ],
)
def test_names_that_cannot_be_had(load, name, message):
    with pytest.raises((ConfigError, DataError), match=message) as caught:
        load("0", source="tfds", name=name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["image", "label"])
def test_sets_of_another_kind(make_set, load_named, missing):
    kept = {key: value for key, value in FabricatedShapes.features.items() if key != missing}
    make_set(features=tfds.features.FeaturesDict(kept))
    with pytest.raises(ConfigError, match=rf"^data\.name: fabricated_shapes has no {missing}s"):
        load_named("round")


@pytest.mark.parametrize("split", ["train", "test"])
def test_sets_without_a_split(make_set, load_named, split):
    make_set(splits=[name for name in ("train", "test") if name != split])
    with pytest.raises(ConfigError, match=rf"^data\.name: .* has no {split} split, only"):
        load_named("round")


def test_test_split_without_labels(make_set, load_named):
    make_set(_generate_examples=functools.partialmethod(label_test_split, label=-1))
    with pytest.raises(ConfigError, match=r"test split is not labelled"):
        load_named("round")


def test_test_split_with_one_class(make_set, load_named):
    make_set(_generate_examples=functools.partialmethod(label_test_split, label=1))
    for category in ("round", "long/thin"):
        with pytest.raises(DataError, match=r"^data\.category: the test split of"):
            load_named(category)


def test_set_prepared_in_another_format(make_set, load_named):
    info = make_set() / "dataset_info.json"
    values = json.loads(info.read_text())
    values["fileFormat"] = "tfrecord"
    info.write_text(json.dumps(values))
    with pytest.raises(DataError, match=r"is prepared as tfrecord.*--config\.data\.tfds_dir"):
        load_named("round")


def test_tensorflow_is_asked_for_by_its_command(load, monkeypatch):
    def prepare(self, **arguments):
        raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")

    monkeypatch.setattr(prepared, "_check_network", lambda *arguments: None)
    monkeypatch.setattr(tfds.image_classification.FashionMNIST, "download_and_prepare", prepare)
    with pytest.raises(DataError, match=r"needs TensorFlow, once: pip install 'tensorflow-cpu"):
        load("0", source="tfds", name="fashion_mnist")


def digest(images):
    return hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize(("source", "category"), [("mnist", "8"), ("cifar10", "ship")])
def test_real_sets_have_the_pixels_of_their_files(load, source, category, tmp_path, request):
    root = str(request.getfixturevalue(f"real_{source}"))
    dataset = load(category, source=source, root=root)
    original = originals.ORIGINALS[source]
    reader = originals.folder_reader(original, root)
    train, train_labels = originals.read_split(original, "train", reader)
    test, test_labels = originals.read_split(original, "test", reader)
    expected = [5851, 9026] if source == "mnist" else [5000, 9000]
    assert [len(dataset.train), int(dataset.test.labels.sum())] == expected
    assert len(dataset.test) == 10_000
    assert digest(dataset.train.images) == digest(train[train_labels == 8])
    assert digest(dataset.test.images) == digest(test)
    np.testing.assert_array_equal(dataset.test.labels, test_labels != 8)

    # The other classes' training images, as they were prepared.
    config = DataConfig(source=source, root=root, tfds_dir=str(tmp_path / "tfds"))
    records = prepared.open_original(config).splits["train"]
    records = records.__getitems__(range(len(records)))
    np.testing.assert_array_equal([record["label"] for record in records], train_labels)
    decoded = [np.asarray(Image.open(io.BytesIO(record["image"]))) for record in records]
    assert digest(np.stack(decoded)) == digest(train)


@pytest.fixture
def prepared_files(tiny_mnist, load, tmp_path):
    """The files that hold the images of a prepared set, by split."""
    load("3", source="mnist", root=str(tiny_mnist[0]))
    files = list((tmp_path / "tfds").rglob("*.array_record-*"))
    return {
        split: next(file for file in files if split in file.name) for split in ("train", "test")
    }


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("damage", ["cut", "flip", "remove"])
def test_damaged_records_are_named(tiny_mnist, load, prepared_files, split, damage):
    file = prepared_files[split]
    content = file.read_bytes()
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes(content[:999] + (b"" if damage == "cut" else b"damage" + content[1005:]))
    with pytest.raises(DataError, match=rf"1\.0\.0: the {split} split is damaged \(.*; remove the"):
        load("3", source="mnist", root=str(tiny_mnist[0]))


@pytest.mark.parametrize("memory_limit_mb", [0, 4096])
def test_images_that_cannot_be_decoded_are_left_out(
    tiny_mnist, load, monkeypatch, tmp_path, memory_limit_mb
):
    decode = images.decode_image

    def refuse(content, name, **form):
        if name in ("MNIST, train image 13", "MNIST, test image 4"):
            raise BadFileError(name, "is not a whole image file; replace or remove it")
        return decode(content, name, **form)

    monkeypatch.setattr(images, "decode_image", refuse)
    fields = {"source": "mnist", "root": str(tiny_mnist[0]), "memory_limit_mb": memory_limit_mb}
    with pytest.raises(BadFileError, match=r"^MNIST, train image 13: is not a whole image file"):
        load("3", cache=tmp_path / "cache", **fields)
    dataset = load("3", cache=tmp_path / "cache", on_bad_file="skip", **fields)
    assert [name[-5:] for name in dataset.train.names] == ["00003", "00023", "00033"]
    assert [name[-5:] for name in dataset.test.names[3:5]] == ["00003", "00005"]
    pixels, labels = tiny_mnist[1]["test"]
    kept = [index for index in range(30) if index != 4]
    np.testing.assert_array_equal(dataset.test.images[..., 0], pixels[kept])
    np.testing.assert_array_equal(dataset.test.labels, labels[kept] != 3)
    assert dataset.left_out == 2
