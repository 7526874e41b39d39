import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from daad_jax.models import layers


def numpy_conv_transpose(x, kernel):
    """Adds every tap to its output pixel: tap k of input i goes to output 2 i + k - 1."""
    batch, height, width, _ = x.shape
    out = np.zeros((batch, 2 * height + 2, 2 * width + 2, kernel.shape[-1]))
    for i in range(height):
        for j in range(width):
            for k in range(4):
                for m in range(4):
                    out[:, 2 * i + k, 2 * j + m] += x[:, i, j] @ kernel[k, m]
    return out[:, 1:-1, 1:-1]


LAYOUT = ("NHWC", "HWIO", "NHWC")


def down_reference(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=LAYOUT
    )


def up_reference(x, kernel):
    return jax.lax.conv_transpose(
        x, kernel[::-1, ::-1], (2, 2), ((2, 2), (2, 2)), dimension_numbers=LAYOUT
    )


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 1, 1, 2), (1, 4, 4, 3)])
def test_up_sample_is_the_transposed_convolution(shape):
    x = jax.random.normal(jax.random.key(0), shape)
    kernel = jax.random.normal(jax.random.key(1), (4, 4, shape[-1], 6))
    result = jax.jit(layers.up_sample)(x, kernel)
    expected = numpy_conv_transpose(np.asarray(x, np.float64), np.asarray(kernel, np.float64))
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_up_conv_adds_its_bias():
    module = layers.Conv(2, use_bias=True, up=True)
    x = jax.random.normal(jax.random.key(0), (1, 2, 2, 3))
    params = module.init(jax.random.key(1), x)["params"]
    shifted = {**params, "bias": params["bias"] + jnp.array([1.0, 2.0])}
    difference = module.apply({"params": shifted}, x) - module.apply({"params": params}, x)
    np.testing.assert_allclose(difference[0, 0, 0], [1.0, 2.0], rtol=1e-5)


@pytest.mark.parametrize(
    ("layer", "reference", "shape"),
    [
        (layers.up_sample, up_reference, (2, 4, 4, 3)),
        *(
            (layers.down_sample, down_reference, shape)
            for shape in [(2, 6, 10, 3), (1, 2, 2, 4), (3, 8, 4, 1), (2, 7, 5, 3), (1, 4, 9, 2)]
        ),
    ],
)
def test_sampling_and_its_gradients_equal_those_of_lax(layer, reference, shape):
    x = jax.random.normal(jax.random.key(0), shape)
    kernel = jax.random.normal(jax.random.key(1), (4, 4, shape[-1], 5))

    def results(function):
        def loss(x, kernel):
            return jnp.sum(function(x, kernel) ** 3)

        return function(x, kernel), *jax.jit(jax.grad(loss, (0, 1)))(x, kernel)

    ours, theirs = results(layer), results(reference)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-4, atol=1e-5)
    for mine, expected in zip(ours[1:], theirs[1:], strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-3, atol=1e-2)


@pytest.mark.slow
# The last two numbers are C and F. With few pixels or features up-sampling is a product, otherwise
# a convolution; the gradient of down-sampling up-samples F channels to C.
@pytest.mark.parametrize(
    ("layer", "reference"),
    [(layers.down_sample, down_reference), (layers.up_sample, up_reference)],
)
@pytest.mark.parametrize(
    "shape", [(2, 6, 10, 3, 17), (2, 6, 10, 17, 3), (1, 4, 8, 17, 18), (2, 2, 2, 17, 18)]
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float64, 1e-13), (jnp.bfloat16, 1e-2)])
def test_results_and_gradients_are_precise(layer, reference, shape, dtype, tolerance):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x = jnp.asarray(rng.normal(size=shape[:4]), dtype)
        kernel = jnp.asarray(rng.normal(size=(4, 4, *shape[3:])), dtype)
        exact, exact_pullback = jax.vjp(
            reference, x.astype(jnp.float64), kernel.astype(jnp.float64)
        )
        cotangent = jnp.asarray(rng.normal(size=exact.shape), dtype)
        result, pullback = jax.vjp(layer, x, kernel)
        ours = (result, *pullback(cotangent))
        theirs = (exact, *exact_pullback(cotangent.astype(jnp.float64)))
        for mine, expected in zip(ours, theirs, strict=True):
            assert mine.dtype == dtype
            error = np.asarray(mine, np.float64) - np.asarray(expected)
            assert np.linalg.norm(error) < tolerance * np.linalg.norm(expected)


@pytest.mark.parametrize(
    ("side", "channels", "features", "product"),
    [(4, 16, 16, True), (4, 15, 16, False), (4, 1, 15, True)],
)
def test_up_sampling_uses_a_product_for_few_pixels_or_features(side, channels, features, product):
    small = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
    large = jax.ShapeDtypeStruct((1, 2 * side, 2 * side, features), jnp.float32)
    up_kernel = jax.ShapeDtypeStruct((4, 4, channels, features), jnp.float32)
    down_kernel = jax.ShapeDtypeStruct((4, 4, features, channels), jnp.float32)

    def products(layer, *arguments):
        gradient = jax.grad(lambda *arrays: jnp.sum(layer(*arrays)))
        return [
            str(jax.make_jaxpr(function)(*arguments)).count("dot_general[")
            for function in (layer, gradient)
        ]

    assert products(layers.up_sample, small, up_kernel) == [product, product]
    assert products(layers.down_sample, large, down_kernel) == [0, product]


@pytest.mark.parametrize("use_bias", [True, False])
def test_down_conv_equals_the_convolution_of_flax(use_bias):
    ours = layers.Conv(5, use_bias=use_bias)
    theirs = nn.Conv(5, (4, 4), (2, 2), ((1, 1), (1, 1)), use_bias=use_bias)
    x = jax.random.normal(jax.random.key(0), (2, 6, 4, 3))
    variables = theirs.init(jax.random.key(1), x)
    assert jax.tree.map(jnp.shape, ours.init(jax.random.key(1), x)) == jax.tree.map(
        jnp.shape, variables
    )
    variables = jax.tree.map(lambda leaf: leaf + 0.1, variables)
    np.testing.assert_allclose(ours.apply(variables, x), theirs.apply(variables, x), rtol=1e-5)
