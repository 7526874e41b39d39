"""Any values of config fields give a config whose networks can be built, or a one-line error."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daad_jax import api
from daad_jax import config as config_lib
from daad_jax.errors import ConfigError
from tests.conftest import tiny_config
from tests.fuzz import cases

FIELDS = sorted(config_lib.field_types())
PLAUSIBLE = st.sampled_from(
    [
        *(0, 1, 2, 3, 8, 64, 0.0, 0.5, 1.0, (4,), (4, 8), (2, 2, 1), [[2, 2, 1], "pixel"], "pixel"),
        *(True, None, "", "all", "x", "calibrated", "skip", "joint", "norm", "daad", "digits"),
        *("top_k(k=3)", "top_k(k=", "l1=0.5", "l1=x", "dcgan", "2x2", "distance"),
    ]
)
EXTREME = st.sampled_from(
    [
        *(math.nan, math.inf, -math.inf, 1e308, -0.0, 10**17, 10**18, -(10**30), 10**400),
        *(10**5000, [10**5000], (10**5000, 1, 1), {}, {"a": 1}, set(), b"a", 1j, object()),
        *("\ud800", "a\nb", "\0", "x" * 5000, [1] * 5000, (1,) * 20, [[[[[1]]]]], range(3)),
    ]
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.binary(max_size=9)
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(max_size=5), inner, max_size=3),
    ),
    max_leaves=8,
)
VALUES = st.one_of(PLAUSIBLE, EXTREME, ANYTHING)
NAMES = st.one_of(
    st.sampled_from(FIELDS),
    st.sampled_from(FIELDS),
    st.sampled_from(FIELDS),
    st.sampled_from(["data", "data.", ".data", "", "data.root.x", "config.seed", "a\nb"]),
    st.text(max_size=9),
)
OVERRIDES = st.dictionaries(NAMES, VALUES, min_size=1, max_size=4)


def assert_config_or_one_line(overrides):
    """Values that enter through `from_flat`, as from a file or the command line."""
    flat = {**config_lib.flatten(config_lib.to_dict(tiny_config())), **overrides}
    config = config_or_line(lambda: config_lib.from_flat(flat))
    if config is not None:
        assert config == config_lib.from_dict(json.loads(json.dumps(config_lib.to_dict(config))))


def assert_checked_or_one_line(overrides):
    """Values that are assigned without a check, as by a config file in Python."""

    def make():
        config = tiny_config()
        for path, value in overrides.items():
            if path in FIELDS:
                *section, name = path.split(".")
                setattr(getattr(config, section[0]) if section else config, name, value)
        return config

    config_or_line(make)


def config_or_line(make):
    """The config that `make` returns if all checks pass; None after a one-line error."""
    try:
        config = make()
        api.check(config)
        return config
    except ConfigError as error:
        line = str(error)
    assert len(line.splitlines()) == 1
    assert len(line) < 2000
    return None


@cases(100)
@given(OVERRIDES)
def test_values_from_files_and_flags(overrides):
    assert_config_or_one_line(overrides)


@cases(100)
@given(OVERRIDES)
def test_values_assigned_directly(overrides):
    assert_checked_or_one_line(overrides)


@pytest.mark.slow
@cases(3000)
@given(OVERRIDES)
def test_many_values_from_files_and_flags(overrides):
    assert_config_or_one_line(overrides)


@pytest.mark.slow
@cases(3000)
@given(OVERRIDES)
def test_many_values_assigned_directly(overrides):
    assert_checked_or_one_line(overrides)


@pytest.mark.parametrize("field", FIELDS)
def test_extreme_values_end_in_one_line(field):
    for value in (10**5000, -(10**400), [10**5000], math.nan, {"a": 1}, object(), "a\nb" * 999, 1j):
        assert_config_or_one_line({field: value})
        assert_checked_or_one_line({field: value})
