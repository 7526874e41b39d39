import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daad_jax.errors import ConfigError
from daad_jax.models.blocks import (
    assemble,
    divide,
    group,
    resolve_groups,
    resolve_rates,
    ungroup,
)


def numpy_blocks(x, rates):
    """The blocks by slicing."""
    (h, w, c), (rh, rw, rc) = x.shape, rates
    bh, bw, bc = h // rh, w // rw, c // rc
    return np.stack(
        [
            x[i * bh : (i + 1) * bh, j * bw : (j + 1) * bw, k * bc : (k + 1) * bc].ravel()
            for i in range(rh)
            for j in range(rw)
            for k in range(rc)
        ]
    )


@st.composite
def maps_and_rates(draw):
    rates = tuple(draw(st.integers(1, 4)) for _ in range(3))
    blocks = tuple(draw(st.integers(1, 4)) for _ in range(3))
    lead = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    shape = (*lead, *(r * b for r, b in zip(rates, blocks, strict=True)))
    return shape, rates


@settings(max_examples=20, deadline=None)
@given(maps_and_rates())
def test_assemble_is_the_inverse_of_divide(shape_and_rates):
    shape, rates = shape_and_rates
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    blocks = divide(jax.numpy.asarray(x), rates)
    assert blocks.shape == (*shape[:-3], np.prod(rates), np.prod(shape[-3:]) // np.prod(rates))
    np.testing.assert_array_equal(assemble(blocks, shape, rates), x)
    np.testing.assert_array_equal(
        blocks.reshape(-1, *blocks.shape[-2:])[0],
        numpy_blocks(x.reshape(-1, *shape[-3:])[0], rates),
    )


def test_divide_works_under_jit_and_vmap():
    x = jax.random.normal(jax.random.key(0), (3, 4, 6, 8))
    rates = (2, 3, 4)
    whole = jax.jit(divide, static_argnums=1)(x, rates)
    mapped = jax.vmap(lambda image: divide(image, rates))(x)
    np.testing.assert_array_equal(whole, mapped)


def test_rates_that_do_not_divide_a_map_raise_an_error():
    with pytest.raises(ValueError, match=r"\(2, 3, 1\)"):
        divide(jax.numpy.zeros((4, 4, 1)), (2, 3, 1))


@settings(max_examples=20, deadline=None)
@given(maps_and_rates())
def test_groups_are_neighbouring_positions_and_ungroup_is_the_inverse(shape_and_groups):
    """The axes of a map stand for the grid of block positions."""
    (*_, height, width, channels), groups = shape_and_groups
    rates = (height, width, channels)
    positions = np.arange(height * width * channels).reshape(rates)
    blocks = jax.numpy.asarray(np.stack([positions.ravel(), -positions.ravel()]))[..., None]
    grouped = group(blocks, rates, groups)
    expected = numpy_blocks(positions, groups)
    np.testing.assert_array_equal(grouped[..., 0], np.stack([expected, -expected], axis=1))
    np.testing.assert_array_equal(ungroup(grouped, rates, groups), blocks)


SCALES = ((32, 32, 8), (16, 16, 16))


def test_rates_for_all_scales_per_scale_and_pixel():
    both = [True, True]
    assert resolve_rates((8, 8, 1), SCALES, both) == ((8, 8, 1), (8, 8, 1))
    assert resolve_rates("pixel", SCALES, both) == ((32, 32, 1), (16, 16, 1))
    assert resolve_rates(["pixel", (4, 2, 2)], SCALES, both) == ((32, 32, 1), (4, 2, 2))
    assert resolve_rates("pixel", SCALES, [False, True]) == (None, (16, 16, 1))


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ((12, 8, 1), r"rate 12 does not divide the height of scale 1, 32 x 32 x 8"),
        ((8, 8, 16), r"rate 16 does not divide the channels of scale 1"),
        ("pixels", "'pixels' is not 'pixel'"),
        ((8, 8), "8 for scale 1 is not 'pixel'"),
        ((8, 8, 0), "is not 'pixel', three numbers"),
        (["pixel", "x"], "'x' for scale 2"),
    ],
)
def test_wrong_rates_are_named(rates, message):
    with pytest.raises(ConfigError, match=message):
        resolve_rates(rates, SCALES, [True, True])


@pytest.mark.parametrize(
    ("banks", "groups"),
    [("one", (1, 1, 1)), ("position", (4, 2, 3)), ("2x1", (2, 1, 1)), ("4x2", (4, 2, 1))],
)
def test_banks_become_groups_of_positions(banks, groups):
    assert resolve_groups(banks, (4, 2, 3), 0) == groups


@pytest.mark.parametrize(
    ("banks", "message"),
    [
        ("2x", "memory.banks: '2x' is not"),
        ("0x1", "memory.banks: '0x1' is not"),
        ("-2x2", "memory.banks: '-2x2' is not"),
        ("2x2x3", "memory.banks: '2x2x3' is not"),
        ("3x2", "memory.banks: 3x2 does not divide the 4 x 2 blocks of scale 2"),
        ("9999999x1", "memory.banks: '9999999x1' is not"),
    ],
)
def test_wrong_banks_are_named(banks, message):
    with pytest.raises(ConfigError, match=message):
        resolve_groups(banks, (4, 2, 3), 1)
