import os

import pytest

from daad_jax.data import display_name, load_dataset

HOSTILE = [
    b"\"quoted\" 'twice'.png",
    b"<script>alert(1)<\xc2\xa7script>.png",
    b"line\nbreak\r\n.png",
    b"a,b;c\t.png",
    b"\xff\xfe latin \xe9.png",
    "gr\u00fcn \U0001f600.png".encode(),
]
SHOWN = [
    "\"quoted\" 'twice'.png",
    "<script>alert(1)<\u00a7script>.png",
    "line\nbreak\r\n.png",
    "a,b;c\t.png",
    "\\xff\\xfe latin \\xe9.png",
    "gr\u00fcn \U0001f600.png",
]


@pytest.fixture
def hostile_folder(image_folder):
    folder = os.fsencode(image_folder / "widget" / "test" / "bad")
    with open(os.path.join(folder, b"0.png"), "rb") as file:
        content = file.read()
    for name in HOSTILE:
        try:
            with open(os.path.join(folder, name), "wb") as file:
                file.write(content)
        except OSError:
            pytest.skip("this file system refuses such names")
    os.rename(folder, folder.replace(b"bad", b"b\xe4d,"))
    return image_folder


def test_names_are_shown_unchanged_but_for_bytes_that_are_not_utf8():
    assert [display_name(os.fsdecode(name)) for name in HOSTILE] == SHOWN


def test_images_and_kinds_have_their_names(hostile_folder, make_config):
    test = load_dataset(make_config(root=str(hostile_folder)), "widget").test
    names = {name.removeprefix("test/b\\xe4d,/") for name in test.names[2:]}
    assert names == {*SHOWN, "0.png", "1.png", "2.png"}
    assert set(test.kinds[2:]) == {"b\\xe4d,"}


def test_masks_are_found_for_hostile_names(hostile_folder, make_config):
    root = os.fsencode(hostile_folder / "widget")
    defects = os.path.join(root, b"test", b"b\xe4d,")
    truth = os.path.join(root, b"ground_truth", b"b\xe4d,")
    os.makedirs(truth)
    for name in os.listdir(defects):
        os.link(os.path.join(defects, name), os.path.join(truth, name[:-4] + b"_mask.png"))
    masks = load_dataset(make_config(root=str(hostile_folder)), "widget").test.masks
    assert not masks[:2].any()
    assert masks[2:].any(axis=(1, 2)).all()
