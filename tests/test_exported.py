"""Exported files of format 1, damaged and hostile ones, and pictures of every kind.

The file in ``tests/fixtures`` is stored in the repository, so that a change of the format is
noticed. `python -m tests.test_exported` makes it anew from the checkpoint beside it; do that only
when a change of the format or of the scores is intended.
"""

import hashlib
import importlib.metadata
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import daad_jax
from daad_jax import exported
from daad_jax.config import DataConfig
from daad_jax.data import decode
from daad_jax.exported import ExportError, Preparation, load_exported
from daad_jax.scoring.export import export_detector, preparation_metadata
from tests.conftest import tiny_dataset
from tests.workdir.test_format import FIXTURE as CHECKPOINT

FIXTURE = Path(__file__).parent / "fixtures" / "exported_format_1.daad"


def make_fixture():
    detector = daad_jax.load(CHECKPOINT)
    reference = tiny_dataset(detector.config).test.images[8:12]
    export_detector(FIXTURE, detector, reference, {"setting": "daad_plus"})


@pytest.fixture(scope="module")
def loaded():
    return load_exported(FIXTURE)


@pytest.fixture
def copy(tmp_path):
    return shutil.copy(FIXTURE, tmp_path / "part.daad")


def test_format_1_is_read_and_gives_the_scores_of_its_checkpoint(loaded):
    assert loaded.metadata["format"] == exported.FORMAT == 1
    assert loaded.difference <= 1e-4
    detector = daad_jax.load(CHECKPOINT)
    images = tiny_dataset(detector.config).test.images
    found, expected = loaded.score(images), detector.score(images)
    np.testing.assert_allclose(found.decision_score, expected.decision_score, rtol=1e-5)
    np.testing.assert_allclose(found.calibrated_score, expected.calibrated_score, atol=1e-4)
    np.testing.assert_allclose(found.p_value, expected.p_value)
    np.testing.assert_array_equal(found.defective, expected.defective)
    np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, atol=1e-5)
    assert loaded.metadata["threshold"] == detector.threshold
    assert len(loaded.metadata["hash"]) == 64


def test_any_number_of_pictures_compiles_few_batch_sizes(loaded):
    images = np.random.default_rng(0).integers(0, 256, (19, 16, 16, 1), dtype=np.uint8)
    together = loaded.score(images)
    for count in (1, 2, 3, 5, 9, 17):
        alone = loaded.score(images[:count])
        assert alone.anomaly_map.shape == (count, 16, 16)
        np.testing.assert_allclose(
            alone.decision_score, together.decision_score[:count], rtol=1e-5, atol=1e-6
        )
    assert loaded._call._cache_size() <= len(loaded.batch_sizes) == 3


def test_it_runs_with_jax_and_numpy_alone(tmp_path):
    """In a folder that holds exported.py, the file, and the packages that JAX requires."""
    site = tmp_path / "site"
    site.mkdir()
    for name in required_by("jax"):
        for file in importlib.metadata.files(name):
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (site / top).exists():
                (site / top).symlink_to(
                    file.locate().parents[len(file.parts) - 2]
                    if len(file.parts) > 1
                    else file.locate()
                )
    shutil.copy(exported.__file__, tmp_path)
    shutil.copy(FIXTURE, tmp_path / "part.daad")
    code = (
        "import sys, numpy; from exported import load_exported; d = load_exported('part.daad');"
        "r = d.score(numpy.full((3, 16, 16, 1), 90, numpy.uint8));"
        "print(r.defective.shape, d.difference < 1e-4);"
        "print([m for m in ('PIL', 'flax', 'daad_jax', 'flatbuffers') if m in sys.modules]);"
        "d.score(['a.png'])"
    )
    result = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.fspath(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == "(3,) True\n[]\n", result.stderr[-2000:]
    assert "ExportError: a.png: needs Pillow" in result.stderr


def required_by(name):
    """The names of a package and of those that it requires without extras."""
    found, waiting = set(), [name]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            for text in importlib.metadata.requires(one) or []:
                if "extra ==" not in text:
                    waiting.append(re.match(r"[\w.-]+", text)[0])
    return found


def rewrite(path, changes=(), *, drop=(), sums=True, compression=zipfile.ZIP_STORED):
    """Changes parts of a file by functions of their bytes, with hashes that fit unless not sums."""
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    for name, change in dict(changes).items():
        parts[name] = change(parts.get(name, b""))
    parts = {name: content for name, content in parts.items() if name not in drop}
    if sums:
        listed = {name: one for name, one in parts.items() if name != exported.SUMS}
        lines = (f"{hashlib.sha256(one).hexdigest()}  {name}\n" for name, one in listed.items())
        parts[exported.SUMS] = "".join(lines).encode()
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in parts.items():
            file.writestr(name, content)


def edited(**values):
    """A function that changes the metadata; ``program__platforms`` is one level down."""

    def change(content):
        metadata = json.loads(content)
        for name, value in values.items():
            *group, key = name.split("__")
            (metadata[group[0]] if group else metadata)[key] = value
        return json.dumps(metadata).encode()

    return {exported.METADATA: change}


def huge_array(content):
    file = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + content


def pickled(content):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.array([{}], object), (1, 0), allow_pickle=True)
    return file.getvalue()


ITEMS = "parameters/generator/params/memories_0/memory_items.npy"
SOUND = "is not a sound exported model"
DAMAGE = {
    "a changed byte": (dict(changes={ITEMS: lambda x: x[:-1] + b"?"}, sums=False), "hash differs"),
    "a missing part": (dict(drop=[ITEMS], sums=False), "lists other parts"),
    "no metadata": (dict(drop=[exported.METADATA]), SOUND),
    "no parameter": (dict(drop=[ITEMS]), SOUND),
    "another part": (dict(changes={"evil.py": lambda x: b"1"}), "'evil.py' does not belong"),
    "a path": (dict(changes={"../a.npy": lambda x: b"1"}), "does not belong"),
    "compression": (dict(compression=zipfile.ZIP_DEFLATED), "does not belong"),
    "a newer format": (dict(changes=edited(format=2)), "has format 2, and this module reads"),
    "no JSON": (dict(changes={exported.METADATA: lambda x: b"{"}), SOUND),
    "a list": (dict(changes={exported.METADATA: lambda x: b"[]"}), SOUND),
    "no batch sizes": (dict(changes=edited(batch_sizes=[])), SOUND),
    "a huge batch": (dict(changes=edited(batch_sizes=[1 << 40])), SOUND),
    "text as size": (dict(changes=edited(input_shape="ab")), SOUND),
    "a huge picture": (dict(changes=edited(input_shape=[1 << 40, 16, 1])), SOUND),
    "another platform": (dict(changes=edited(program__platforms=["tpu"])), "for tpu, not cpu"),
    "other results": (dict(changes=edited(program__outputs={"x": ["float64", []]})), SOUND),
    "a huge array": (dict(changes={ITEMS: huge_array}), SOUND),
    "a pickle": (dict(changes={ITEMS: pickled}), SOUND),
    "no program": (dict(changes={exported.PROGRAM: lambda x: b"hello"}), SOUND),
    "half a program": (dict(changes={exported.PROGRAM: lambda x: x[: len(x) // 2]}), SOUND),
    "other weights": (
        dict(changes={ITEMS: lambda x: x[:128] + bytes(len(x) - 128)}),
        "its reference pictures have other scores on this machine, by",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_one_line(name, copy):
    arguments, message = DAMAGE[name]
    rewrite(copy, **arguments)
    assert_refused(copy, message)


def test_what_is_no_file_is_one_line(tmp_path, copy):
    assert_refused(tmp_path / "none.daad", "cannot be read (No such file")
    assert_refused(tmp_path, "cannot be read (Is a directory")
    copy.write_bytes(copy.read_bytes()[:5000])
    assert_refused(copy, SOUND)
    copy.write_bytes(b"")
    assert_refused(copy, SOUND)


def test_a_program_that_calls_functions_of_jaxlib_is_refused(copy, monkeypatch):
    monkeypatch.setattr(exported, "_ALLOWED_CALL", "no call")
    assert_refused(copy, "calls functions outside of it")


def assert_refused(path, message):
    with pytest.raises(ExportError) as caught:
        load_exported(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert message in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("images", "error"),
    [
        ("a.png", "put it into a list"),
        (np.zeros((16, 16, 1), np.uint8), "put it into a list"),
        ([], "no images"),
        (np.zeros((0, 16, 16, 1), np.uint8), "no images"),
        (np.zeros((2, 16, 16, 1), np.float32), r"an image is float32 \(16, 16, 1\)"),
        (["none.png"], r"none.png: cannot be read \(No such file"),
        ([b"hello"], r"picture: cannot be read \(it is damaged or no picture\)"),
    ],
)
def test_wrong_images_are_one_line(loaded, images, error):
    with pytest.raises(ValueError, match=error):
        loaded.score(images)


def encoded(mode, form, *, size=(37, 29), **options):
    """A picture of smooth random colours as the bytes of a file."""
    rng = np.random.default_rng(len(mode) + size[0])
    grid = rng.integers(0, 256, (5, 5, 4), dtype=np.uint8)
    smooth = Image.fromarray(grid, "RGBA").resize(size, Image.Resampling.BICUBIC)
    if mode in ("I;16", "F"):
        values = np.asarray(smooth.convert("L"), np.float32)
        wide = (values * 257).astype(np.uint16) if mode == "I;16" else values / 255
        image = Image.fromarray(wide)
    else:
        base = smooth if mode in ("RGBA", "LA") else smooth.convert("RGB")
        image = base.convert(mode)
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def keyed():
    """A picture of 16 bits, whose most common value is transparent."""
    image = Image.open(io.BytesIO(encoded("I;16", "PNG")))
    values, counts = np.unique(np.asarray(image), return_counts=True)
    return encoded("I;16", "PNG", transparency=int(values[counts.argmax()]))


def turned(tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    return exif.tobytes()


FILES = {
    **{f"png {mode}": encoded(mode, "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")},
    "png transparent colour": encoded("P", "PNG", transparency=3),
    "png 16 bits": encoded("I;16", "PNG"),
    "png 16 bits, transparent value": keyed(),
    "png turned": encoded("RGB", "PNG", exif=turned(6)),
    **{f"jpeg turned {tag}": encoded("RGB", "JPEG", exif=turned(tag)) for tag in range(1, 9)},
    "jpeg L": encoded("L", "JPEG"),
    "jpeg CMYK": encoded("CMYK", "JPEG"),
    "bmp": encoded("RGB", "BMP"),
    "webp": encoded("RGBA", "WEBP", lossless=True),
    "tiff": encoded("RGB", "TIFF", compression="tiff_lzw"),
    "tiff 16 bits": encoded("I;16", "TIFF"),
    "tiff floats": encoded("F", "TIFF"),
    "large": encoded("RGB", "PNG", size=(300, 120)),
    "small": encoded("L", "PNG", size=(5, 9)),
    "the size": encoded("RGB", "PNG", size=(32, 24)),
}
PREPARED = {
    "colour": {},
    "grey": {"channels": 1, "resize": "bilinear"},
    "padded": {"fit": "pad", "resize": "lanczos"},
    "padded, ignored": {"fit": "pad", "ignore": "0,0,0.3,0.2; 0.8,0.5,0.1,0.4", "channels": 1},
    "ignored by a mask": {"ignore": "mask.png", "resize": "nearest"},
    "range": {"value_range": (100.0, 40_000.0), "resize": "bicubic"},
}


@pytest.mark.parametrize("config", PREPARED)
def test_pictures_get_the_same_pixels_as_in_training(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mask = np.zeros((60, 40), np.uint8)
    mask[10:30, 5:20] = 255
    Image.fromarray(mask).save("mask.png")
    data = DataConfig(image_size=(24, 32), **PREPARED[config])
    is_mask = data.ignore and data.ignored_boxes() is None
    ignored = decode.ignore_mask(data.ignore) if is_mask else None
    metadata = json.loads(json.dumps(preparation_metadata(data)))
    preparation = Preparation(metadata, ignored)
    for name, content in FILES.items():
        expected = decode.decode_image(content, name, data)
        np.testing.assert_array_equal(preparation(content), expected, err_msg=name)
        Path("a.bin").write_bytes(content)
        np.testing.assert_array_equal(preparation("a.bin"), expected, err_msg=name)
    for shape in ((24, 32, 3), (40, 30, 3), (40, 30), (40, 30, 1)):
        array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        np.testing.assert_array_equal(preparation(array), decode.resize_array(array, data))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (encoded("RGB", "PNG")[:200], "damaged or no picture"),
        (encoded("RGB", "GIF"), "damaged or no picture"),
        (Image.fromarray(np.zeros((4, 4), np.int32)), "grey values of 32 bits"),
        (Image.fromarray(np.full((4, 4), 7.0, np.float32)), "floats that are not from 0 to 1"),
        (Image.new("L", (20_000, 20_000)), "too many pixels"),
    ],
)
def test_pictures_that_cannot_be_used_are_one_line(content, message):
    preparation = Preparation(preparation_metadata(DataConfig(image_size=16)))
    with pytest.raises(ExportError, match=f"picture: .*{message}"):
        preparation(content)


if __name__ == "__main__":
    make_fixture()
