import numpy as np
import pytest

from daad_jax.data import one_class
from daad_jax.errors import ConfigError

NAMES = ["cat", "1", "dog"]


def test_a_name_goes_before_a_number():
    assert one_class.resolve_class("cat", NAMES) == 0
    assert one_class.resolve_class("2", NAMES) == 2
    assert one_class.resolve_class("1", ["1", "0"]) == 0


@pytest.mark.parametrize("category", ["", "3", "-1", "cow", "all", "²"])
def test_unknown_class(category):
    with pytest.raises(ConfigError, match=r"^data\.category: no class"):
        one_class.resolve_class(category, NAMES)


def test_kinds():
    assert one_class.class_kinds(np.array([2, 0, 1]), NAMES, 0) == ["dog", "good", "1"]


def test_a_class_called_good_is_a_defect_when_another_is_normal():
    kinds = one_class.class_kinds(np.array([0, 1]), ["good", "bad"], 1)
    assert kinds == ["class good", "good"]
