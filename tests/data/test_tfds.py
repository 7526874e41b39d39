import functools
import io
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from daad_jax.data import decode as decode_lib
from daad_jax.data import list_categories
from daad_jax.data.sources import tfds as source
from daad_jax.errors import BadFileError, ConfigError, DataError


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
    """Prepares the made-up set, with changes, where the library finds it by its name."""

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


def test_a_set_by_name(make_set, load_named):
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
    config.category = "2"
    assert list_categories(config) == ["good"]
    config.category = "long"
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
        (
            "fashion_mnist",
            r"^data\.name: fashion_mnist must be downloaded .*; copy the prepared",
        ),
    ],
)
def test_names_without_a_set_are_named(load, name, message):
    with pytest.raises((ConfigError, DataError), match=message) as caught:
        load("0", source="tfds", name=name)
    assert "\n" not in str(caught.value)


def test_a_missing_name_is_an_error(load):
    with pytest.raises(ConfigError, match=r"^data\.name: give a set's name"):
        load("0", source="tfds")


@pytest.mark.parametrize("missing", ["image", "label"])
def test_sets_without_images_or_labels(make_set, load_named, missing):
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
    with pytest.raises(ConfigError, match=r"^data\.name: the test split has no labels"):
        load_named("round")


def test_a_test_split_with_one_class_is_a_warning(make_set, load_named, capsys):
    make_set(_generate_examples=functools.partialmethod(label_test_split, label=1))
    for category, missing in {"round": "normal", "long/thin": "defective"}.items():
        load_named(category)
        line = f"warning: {category}: no {missing} test image, so there is no AUROC\n"
        assert line in capsys.readouterr().err


def test_set_prepared_in_another_format(make_set, load_named):
    info = make_set() / "dataset_info.json"
    values = json.loads(info.read_text())
    values["fileFormat"] = "tfrecord"
    info.write_text(json.dumps(values))
    with pytest.raises(DataError, match=r"is prepared as tfrecord.*--config\.data\.tfds_dir"):
        load_named("round")


def test_the_error_gives_the_command_that_installs_tensorflow(load, monkeypatch):
    def prepare(self, **arguments):
        raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")

    monkeypatch.setattr(source, "check_network", lambda *arguments: None)
    monkeypatch.setattr(tfds.image_classification.FashionMNIST, "download_and_prepare", prepare)
    with pytest.raises(DataError, match=r"needs TensorFlow, once: pip install 'tensorflow-cpu"):
        load("0", source="tfds", name="fashion_mnist")


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("damage", ["cut", "flip", "remove"])
def test_damaged_records_are_named(make_set, load_named, split, damage):
    (file,) = make_set().glob(f"*{split}.array_record-*")
    content = file.read_bytes()
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes(content[:999] + (b"" if damage == "cut" else b"damage" + content[1005:]))
    with pytest.raises(DataError, match=rf"1\.2\.0: the {split} split is damaged \(.*; remove the"):
        load_named("round")


@pytest.mark.parametrize("memory_limit_mb", [0, 4096])
def test_images_that_cannot_be_decoded_are_left_out(
    make_set, load_named, monkeypatch, tmp_path, memory_limit_mb
):
    make_set()
    whole, decode = load_named("round"), decode_lib.decode_image
    assert (len(whole.train), len(whole.test)) == (8, 24)
    bad = [whole.train.names[2], whole.test.names[4]]
    bad_places = {
        f"fabricated_shapes, {name.split('/')[0]} image {int(name.rsplit('/', 1)[1])}"
        for name in bad
    }

    def refuse(content, name, config):
        if name in bad_places:
            raise BadFileError(name, "is not a whole image file; replace or remove it")
        return decode(content, name, config)

    monkeypatch.setattr(decode_lib, "decode_image", refuse)
    load = functools.partial(
        load_named, "round", tmp_path / "cache", memory_limit_mb=memory_limit_mb
    )
    with pytest.raises(BadFileError, match=r"^fabricated_shapes, train image \d+: is not a whole"):
        load()
    dataset = load(on_bad_file="skip")
    for part, before in ((dataset.train, whole.train), (dataset.test, whole.test)):
        kept = [index for index, name in enumerate(before.names) if name not in bad]
        assert part.names == [before.names[index] for index in kept]
        np.testing.assert_array_equal(part.images, before.images[kept])
        np.testing.assert_array_equal(part.labels, before.labels[kept])
    assert dataset.left_out == 2
