import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daad_jax.errors import ConfigError
from daad_jax.partition import assemble, divide, resolve_rates


def numpy_blocks(x, rates):
    """The blocks by plain slicing."""
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
def test_assembly_inverts_division(shape_and_rates):
    shape, rates = shape_and_rates
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    blocks = divide(jax.numpy.asarray(x), rates)
    assert blocks.shape == (*shape[:-3], np.prod(rates), np.prod(shape[-3:]) // np.prod(rates))
    np.testing.assert_array_equal(assemble(blocks, shape, rates), x)
    np.testing.assert_array_equal(
        blocks.reshape(-1, *blocks.shape[-2:])[0],
        numpy_blocks(x.reshape(-1, *shape[-3:])[0], rates),
    )


def test_division_under_jit_and_vmap():
    x = jax.random.normal(jax.random.key(0), (3, 4, 6, 8))
    rates = (2, 3, 4)
    whole = jax.jit(divide, static_argnums=1)(x, rates)
    mapped = jax.vmap(lambda image: divide(image, rates))(x)
    np.testing.assert_array_equal(whole, mapped)


def test_division_refuses_rates_that_do_not_divide():
    with pytest.raises(ValueError, match=r"\(2, 3, 1\)"):
        divide(jax.numpy.zeros((4, 4, 1)), (2, 3, 1))


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
def test_rates_that_cannot_work_are_named(rates, message):
    with pytest.raises(ConfigError, match=message):
        resolve_rates(rates, SCALES, [True, True])
