import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from daad_jax import layers


def numpy_conv_transpose(x, kernel):
    """Scatter every tap: output 2 i + k - 1 receives tap k of input i."""
    batch, height, width, _ = x.shape
    out = np.zeros((batch, 2 * height + 2, 2 * width + 2, kernel.shape[-1]))
    for i in range(height):
        for j in range(width):
            for k in range(4):
                for m in range(4):
                    out[:, 2 * i + k, 2 * j + m] += x[:, i, j] @ kernel[k, m]
    return out[:, 1:-1, 1:-1]


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 1, 1, 2), (1, 4, 4, 3)])
def test_up_sample_is_the_transposed_convolution(shape):
    x = jax.random.normal(jax.random.key(0), shape)
    kernel = jax.random.normal(jax.random.key(1), (4, 4, shape[-1], 6))
    result = jax.jit(layers.up_sample)(x, kernel)
    expected = numpy_conv_transpose(np.asarray(x, np.float64), np.asarray(kernel, np.float64))
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_up_sample_and_its_gradient_agree_with_lax():
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    kernel = jax.random.normal(jax.random.key(1), (4, 4, 3, 5))

    def reference(x, kernel):
        return jax.lax.conv_transpose(
            x,
            kernel[::-1, ::-1],
            (2, 2),
            ((2, 2), (2, 2)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    for argument in (0, 1):
        ours = jax.grad(lambda *a: jnp.sum(layers.up_sample(*a) ** 3), argument)(x, kernel)
        theirs = jax.grad(lambda *a: jnp.sum(reference(*a) ** 3), argument)(x, kernel)
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-2)


def test_up_conv_adds_its_bias():
    module = layers.UpConv(2, use_bias=True)
    x = jax.random.normal(jax.random.key(0), (1, 2, 2, 3))
    params = module.init(jax.random.key(1), x)["params"]
    shifted = {**params, "bias": params["bias"] + jnp.array([1.0, 2.0])}
    difference = module.apply({"params": shifted}, x) - module.apply({"params": params}, x)
    np.testing.assert_allclose(difference[0, 0, 0], [1.0, 2.0], rtol=1e-5)


@pytest.mark.parametrize("shape", [(2, 6, 10, 3), (1, 2, 2, 4), (3, 8, 4, 1)])
def test_down_sample_and_its_gradients_are_those_of_lax(shape):
    x = jax.random.normal(jax.random.key(0), shape)
    kernel = jax.random.normal(jax.random.key(1), (4, 4, shape[-1], 5))

    def reference(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    np.testing.assert_array_equal(layers.down_sample(x, kernel), reference(x, kernel))
    for argument in (0, 1):
        ours = jax.grad(lambda *a: jnp.sum(layers.down_sample(*a) ** 3), argument)(x, kernel)
        theirs = jax.grad(lambda *a: jnp.sum(reference(*a) ** 3), argument)(x, kernel)
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("shape", [(2, 6, 10, 3), (2, 4, 2, 3), (2, 2, 10, 3), (2, 4, 6, 3)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float64, 1e-13), (jnp.bfloat16, 1e-2)])
def test_down_sample_is_precise_in_both_spellings_of_its_gradient(shape, dtype, tolerance):
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), shape, jnp.float64).astype(dtype)
        kernel = jax.random.normal(jax.random.key(1), (4, 4, 3, 5), jnp.float64).astype(dtype)
        cotangent = jax.random.normal(
            jax.random.key(2), (2, shape[1] // 2, shape[2] // 2, 5), jnp.float64
        ).astype(dtype)

        def reference(x, kernel):
            return jax.lax.conv_general_dilated(
                x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
            )

        ours, pullback = jax.vjp(layers.down_sample, x, kernel)
        wide = [array.astype(jnp.float64) for array in (x, kernel, cotangent)]
        theirs, reference_pullback = jax.vjp(reference, *wide[:2])
        for mine, exact in zip(
            (ours, *pullback(cotangent)),
            (theirs, *reference_pullback(wide[2])),
            strict=True,
        ):
            assert mine.dtype == dtype
            error = np.asarray(mine, np.float64) - np.asarray(exact)
            assert np.linalg.norm(error) < tolerance * np.linalg.norm(exact)


@pytest.mark.parametrize(
    ("side", "features", "products"), [(16, 256, 1), (16, 255, 0), (1, 1, 1), (2, 3, 0)]
)
def test_a_small_map_has_its_gradient_as_a_product(side, features, products):
    x = jax.ShapeDtypeStruct((1, 2 * side, 2 * side, 2), jnp.float32)
    kernel = jax.ShapeDtypeStruct((4, 4, 2, features), jnp.float32)
    gradient = jax.grad(lambda x, kernel: jnp.sum(layers.down_sample(x, kernel)))
    text = str(jax.make_jaxpr(gradient)(x, kernel))
    assert text.count("dot_general[") == products


@pytest.mark.parametrize("use_bias", [True, False])
def test_down_conv_takes_the_parameters_of_flax(use_bias):
    ours = layers.DownConv(5, use_bias=use_bias)
    theirs = nn.Conv(5, (4, 4), (2, 2), ((1, 1), (1, 1)), use_bias=use_bias)
    x = jax.random.normal(jax.random.key(0), (2, 6, 4, 3))
    variables = theirs.init(jax.random.key(1), x)
    assert jax.tree.map(jnp.shape, ours.init(jax.random.key(1), x)) == jax.tree.map(
        jnp.shape, variables
    )
    variables = jax.tree.map(lambda leaf: leaf + 0.1, variables)
    np.testing.assert_allclose(ours.apply(variables, x), theirs.apply(variables, x), rtol=1e-5)
