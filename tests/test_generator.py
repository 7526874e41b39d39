import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from daad_jax import addressing, memory
from daad_jax import config as config_lib
from daad_jax.discriminator import Discriminator, stage_count
from daad_jax.generator import Generator, MemorySpec, scale_sizes, summarize_reads
from daad_jax.state import build_networks
from tests.conftest import tiny_config

KEY = jax.random.key(0)


def frozen_weights(similarities):
    return jax.lax.stop_gradient(addressing.threshold(similarities))


@functools.cache
def make(setting, rule=None, **overrides):
    config = tiny_config(setting, **overrides)
    generator = build_networks(config).generator
    if rule is not None:
        memories = tuple(None if m is None else m._replace(rule=rule) for m in generator.memories)
        generator = generator.clone(memories=memories)
    images = jax.random.uniform(KEY, (2, 16, 16, 1), minval=-1.0)
    variables = init(generator, images)
    return generator, variables, images


def init(module, images):
    return jax.jit(functools.partial(module.init, train=True))(KEY, images)


def apply(module, variables, images, **keywords):
    return jax.jit(functools.partial(module.apply, train=False, **keywords))(variables, images)


@pytest.mark.parametrize("setting", sorted(config_lib.SETTINGS))
def test_every_setting_has_its_memories_and_rebuilds_the_shape(setting):
    generator, variables, images = make(setting)
    out = apply(generator, variables, images)
    assert out["reconstruction"].shape == images.shape
    assert np.abs(out["reconstruction"]).max() <= 1
    memories = {"ae": 0, "ae_skip": 0, "memae": 1}.get(setting, 2)
    assert len(out["reads"]) == memories
    banks = [name for name in variables["params"] if name.startswith("memory")]
    assert len(banks) == memories
    if setting == "memae":
        assert banks == ["memory_2"]
        assert out["reads"]["scale_2"].block.shape == (2, 16, 8)  # 4 x 4 blocks of a pixel
    widened = generator.skips
    joined = variables["params"]["decoder_1"]["kernel"].shape[2]
    assert joined == (8 if widened else 4)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("setting", ["daad", "memae", "memae_skip"])
def test_nothing_goes_around_the_memory(setting, train):
    generator, variables, images = make(setting, frozen_weights)

    def total(x):
        out, _ = generator.apply(variables, x, train=train, mutable=["batch_stats"])
        return jnp.sum(jnp.square(out["reconstruction"]))

    np.testing.assert_array_equal(jax.jit(jax.grad(total))(images), 0.0)
    with_gradient, variables, images = make(setting)

    def rebuilt(x):
        return jnp.sum(jnp.square(with_gradient.apply(variables, x, train=False)["reconstruction"]))

    assert np.abs(jax.jit(jax.grad(rebuilt))(images)).max() > 0


def test_skips_without_memory_do_go_around():
    generator, variables, images = make("ae_skip", frozen_weights)
    grad = jax.grad(
        lambda x: jnp.sum(generator.apply(variables, x, train=False)["reconstruction"])
    )(images)
    assert np.abs(grad).max() > 0


def test_images_need_not_be_square():
    generator = Generator(
        widths=(4, 8),
        channels=3,
        memories=(MemorySpec(5, (2, 4, 2)), MemorySpec(5, (1, 2, 4))),
    )
    images = jax.random.uniform(KEY, (2, 8, 32, 3))
    variables = init(generator, images)
    out = apply(generator, variables, images)
    assert out["reconstruction"].shape == images.shape
    assert [f.shape[1:] for f in out["features"]] == list(scale_sizes(8, 32, (4, 8)))
    assert variables["params"]["memory_1"]["memory_items"].shape == (5, 4 * 16 * 4 // 16)


def test_assembled_maps_are_reads_of_the_features():
    generator, variables, images = make("daad")
    out = apply(generator, variables, images)
    items = variables["params"]["memory_1"]["memory_items"]
    queries = out["features"][0].reshape(2, 2, 4, 2, 4, 4).transpose(0, 1, 3, 2, 4, 5)
    one = memory.read(queries[1, 0, 1].reshape(-1), items, temperature=0.5)
    block = out["assembled"][0][1, :4, 4:8]
    np.testing.assert_allclose(block.reshape(-1), one.block, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "overrides", [{"model__skip_join": "sum"}, {"model__query_from": "before"}]
)
def test_open_choices_change_the_result(overrides):
    generator, variables, images = make("daad", **overrides)
    other, other_variables, _ = make("daad")
    ours = apply(generator, variables, images)["reconstruction"]
    theirs = apply(other, other_variables, images)["reconstruction"]
    assert np.abs(ours - theirs).max() > 1e-6


def test_querying_before_the_activation_sees_negative_features():
    generator, variables, images = make("daad", model__query_from="before")
    after, after_variables, _ = make("daad")
    first = apply(generator, variables, images)["features"][0]
    activated = apply(after, after_variables, images)["features"][0]
    np.testing.assert_allclose(jax.nn.leaky_relu(first, 0.2), activated, rtol=1e-5, atol=1e-6)


def test_weights_are_returned_on_request_only():
    generator, variables, images = make("daad")
    with_weights = apply(generator, variables, images, return_weights=True)
    assert with_weights["reads"]["scale_1"].weights.shape == (2, 4, 8)
    assert apply(generator, variables, images)["reads"]["scale_1"].weights is None


def test_read_summaries_are_means_and_a_count():
    generator, variables, images = make("daad")
    reads = apply(generator, variables, images)["reads"]
    metrics = summarize_reads(reads)
    summary = reads["scale_2"].summary
    np.testing.assert_allclose(metrics["memory/scale_2/entropy"], np.mean(summary.entropy))
    assert metrics["memory/scale_2/dead_reads"] == np.sum(summary.dead)
    assert len(metrics) == 8


@pytest.mark.parametrize(("size", "stages"), [(256, 6), (64, 4), (32, 3), (28, 3), (8, 1), (4, 1)])
def test_discriminator_goes_down_to_four_pixels(size, stages):
    assert stage_count(size, size) == stages


def test_discriminator_gives_logits_and_the_chosen_features():
    images = jax.random.uniform(KEY, (3, 32, 32, 1), minval=-1.0)
    for layer, shape in ((-1, (3, 4, 4, 8)), (0, (3, 16, 16, 4))):
        network = Discriminator(width=4, max_width=8, feature_layer=layer)
        variables = init(network, images)
        logits, features = apply(network, variables, images)
        assert logits.shape == (3,)
        assert features.shape == shape
    assert "norm_1" not in variables["params"]
    assert "norm_2" in variables["params"]
