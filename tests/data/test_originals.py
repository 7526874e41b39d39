import gzip

import numpy as np
import pytest

from daad_jax.data import originals
from daad_jax.errors import DataError

MNIST, CIFAR10 = originals.MNIST, originals.CIFAR10


def read(original, root, split):
    reader = originals.folder_reader(original, str(root))
    return originals.read_split(original, split, reader)


def test_mnist(tiny_mnist):
    root, splits = tiny_mnist
    for split, (pixels, labels) in splits.items():
        found_pixels, found_labels = read(MNIST, root, split)
        np.testing.assert_array_equal(found_pixels[..., 0], pixels)
        np.testing.assert_array_equal(found_labels, labels)


@pytest.mark.parametrize("inside", ["", "cifar-10-batches-bin"])
def test_cifar10_from_the_folder_or_its_parent(tiny_cifar10, inside):
    root, splits = tiny_cifar10
    for split, (pixels, labels) in splits.items():
        found_pixels, found_labels = read(CIFAR10, root / inside, split)
        np.testing.assert_array_equal(found_pixels, pixels)
        np.testing.assert_array_equal(found_labels, labels)


def test_missing_file(tiny_mnist):
    root, _ = tiny_mnist
    (root / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz: missing; data\.root"):
        originals.folder_reader(MNIST, str(root))


def damage(content, how):
    raw = gzip.decompress(content)
    return {
        "cut": content[: len(content) // 2],
        "text": b"not a gzip file",
        "empty": b"",
        "short": gzip.compress(raw[:-1]),
        "other": gzip.compress(b"\x00\x00\x0d" + raw[3:]),
        "header": gzip.compress(raw[:6]),
    }[how]


@pytest.mark.parametrize("how", ["cut", "text", "empty", "short", "other", "header"])
@pytest.mark.parametrize("name", MNIST.files["train"])
def test_damaged_mnist(tiny_mnist, name, how):
    root, _ = tiny_mnist
    (root / name).write_bytes(damage((root / name).read_bytes(), how))
    with pytest.raises(DataError, match=rf"^{name}: .*; restore") as caught:
        read(MNIST, root, "train")
    assert "\n" not in str(caught.value)


def test_mnist_counts_must_agree(tiny_mnist):
    root, _ = tiny_mnist
    other = (root / "t10k-labels-idx1-ubyte.gz").read_bytes()
    (root / "train-labels-idx1-ubyte.gz").write_bytes(other)
    with pytest.raises(DataError, match="30 labels for 40 images"):
        read(MNIST, root, "train")


@pytest.mark.parametrize("content", [b"", b"\x01" * 3072, b"\x0a" * 3073])
def test_damaged_cifar10(tiny_cifar10, content):
    root, _ = tiny_cifar10
    (root / "cifar-10-batches-bin" / "data_batch_3.bin").write_bytes(content)
    with pytest.raises(DataError, match=r"^data_batch_3\.bin: "):
        read(CIFAR10, root, "train")


def test_fingerprint_sees_every_file(tiny_mnist):
    root, _ = tiny_mnist
    seen = {originals.fingerprint(MNIST, originals.folder_reader(MNIST, str(root)))}
    for name in MNIST.all_files:
        (root / name).write_bytes((root / name).read_bytes() + b"\0")
        seen.add(originals.fingerprint(MNIST, originals.folder_reader(MNIST, str(root))))
    assert len(seen) == 5
