import functools

import jax
import jax.numpy as jnp
import pytest

from daad_jax.models.discriminator import Discriminator, stage_count

KEY = jax.random.key(0)
IMAGES = jax.random.uniform(KEY, (3, 32, 32, 1), minval=-1.0)


def initial(network):
    return jax.jit(functools.partial(network.init, train=True))(KEY, IMAGES)


@pytest.mark.parametrize(("size", "stages"), [(256, 6), (64, 4), (32, 3), (28, 3), (8, 1), (4, 1)])
def test_stages_reduce_the_image_to_four_pixels(size, stages):
    assert stage_count(size, size) == stages


@pytest.mark.parametrize(("layer", "shape"), [(-1, (3, 4, 4, 8)), (0, (3, 16, 16, 4))])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_logits_and_features_of_the_chosen_layer(layer, shape, dtype):
    network = Discriminator(width=4, max_width=8, feature_layer=layer, dtype=dtype)
    out = jax.jit(functools.partial(network.apply, train=False))(initial(network), IMAGES)
    assert out.logits.shape == (3,)
    assert out.features.shape == shape
    assert out.logits.dtype == out.features.dtype == jnp.float32


def test_the_first_stage_has_no_batch_normalisation():
    params = initial(Discriminator(width=4, max_width=8))["params"]
    assert "norm_1" not in params
    assert "norm_2" in params


def test_channels_double_up_to_the_limit():
    params = initial(Discriminator(width=4, max_width=8))["params"]
    assert [params[f"conv_{i}"]["kernel"].shape[-1] for i in (1, 2, 3)] == [4, 8, 8]
