import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from daad_jax import config as config_lib
from daad_jax.addressing import MNAD, Threshold, Weighing, read
from daad_jax.models.autoencoder import (
    Autoencoder,
    all_scale_names,
    memory_items,
    memory_metrics,
    scale_memories,
)
from daad_jax.models.backbones.dcgan import Decoder, Encoder
from daad_jax.models.build import build_networks
from daad_jax.models.memory import BlockMemory
from tests.conftest import tiny_config

KEY = jax.random.key(0)


def constant_weights(similarities):
    """Threshold weights without a gradient."""
    return jax.lax.stop_gradient(Threshold().weigh(similarities, {}))


WITHOUT_GRADIENT = Weighing(constant_weights)


@functools.cache
def make(setting, rule=None, **overrides):
    generator = build_networks(tiny_config(setting, **overrides), rule).generator
    images = jax.random.uniform(KEY, (2, 16, 16, 1), minval=-1.0)
    return generator, init(generator, images), images


def init(module, images):
    return jax.jit(functools.partial(module.init, train=True))(KEY, images)


def apply(module, variables, images, **options):
    return jax.jit(functools.partial(module.apply, train=False, **options))(variables, images)


@pytest.mark.slow
@pytest.mark.parametrize("setting", sorted(config_lib.SETTINGS))
def test_every_setting_has_its_memories_and_restores_the_image_shape(setting):
    generator, variables, images = make(setting)
    out = apply(generator, variables, images)
    assert out.reconstruction.shape == images.shape
    assert np.abs(out.reconstruction).max() <= 1
    assert all_scale_names(generator) == ["scale_1", "scale_2"]
    scales = {"ae": (), "ae_skip": (), "memae": ("scale_2",)}.get(setting, ("scale_1", "scale_2"))
    assert tuple(out.reads) == tuple(out.summaries) == tuple(scale_memories(generator)) == scales
    banks = [name for name in variables["params"] if name.startswith("memories_")]
    assert sorted(banks) == [f"memories_{int(scale[-1]) - 1}" for scale in scales]
    if setting == "memae":
        assert out.reads["scale_2"].block.shape == (2, 16, 8)  # 4 x 4 blocks of one pixel
    joined = variables["params"]["decoder"]["conv_1"]["kernel"].shape[2]
    assert joined == (4 if setting in ("ae", "memae") else 8)


@pytest.mark.slow
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("setting", ["daad", "memae", "memae_skip"])
def test_the_reconstruction_depends_on_the_image_through_the_weights_only(setting, train):
    def gradient(generator, variables, images):
        def total(x):
            out, _ = generator.apply(variables, x, train=train, mutable=["batch_stats"])
            return jnp.sum(jnp.square(out.reconstruction))

        return jax.jit(jax.grad(total))(images)

    np.testing.assert_array_equal(gradient(*make(setting, WITHOUT_GRADIENT)), 0.0)
    assert np.abs(gradient(*make(setting))).max() > 0


def test_skip_connections_without_memory_bypass_the_weights():
    generator, variables, images = make("ae_skip", WITHOUT_GRADIENT)
    gradient = jax.jit(
        jax.grad(lambda x: jnp.sum(generator.apply(variables, x, train=False).reconstruction))
    )(images)
    assert np.abs(gradient).max() > 0


def test_images_need_not_be_square():
    memories = (BlockMemory(5, (2, 4, 2)), BlockMemory(5, (1, 2, 4)))
    generator = Autoencoder(Encoder((4, 8)), Decoder((4, 8), channels=3), memories)
    images = jax.random.uniform(KEY, (2, 8, 32, 3))
    variables = init(generator, images)
    out = apply(generator, variables, images)
    assert out.reconstruction.shape == images.shape
    assert [one.shape[1:] for one in out.features] == [(4, 16, 4), (2, 8, 8)]
    assert variables["params"]["memories_0"]["memory_items"].shape == (5, 4 * 16 * 4 // 16)


def test_assembled_maps_are_reads_of_the_features():
    generator, variables, images = make("daad")
    out = apply(generator, variables, images)
    items = variables["params"]["memories_0"]["memory_items"]
    query = out.features[0][1, :4, 4:8].reshape(-1)
    one = jax.jit(functools.partial(read, temperature=0.5))(query, items)
    block = out.assembled[0][1, :4, 4:8]
    np.testing.assert_allclose(block.reshape(-1), one.block, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("query_from", ["after", "before"])
@pytest.mark.parametrize("train", [True, False])
def test_encode_read_and_decode_make_up_the_whole(query_from, train):
    generator, variables, images = make("daad", model__query_from=query_from)

    def whole(module, images):
        return module(images, train=train, return_weights=True)

    def parts(module, images):
        features = module.encode(images, train=train)
        assembled, *reads = module.read(features, train=train, return_weights=True)
        return module.decode(assembled, train=train), features, assembled, *reads

    outputs = [
        jax.jit(functools.partial(generator.apply, method=method, mutable=["batch_stats"]))(
            variables, images
        )
        for method in (whole, parts)
    ]
    (together, stats), (apart, other_stats) = outputs
    jax.tree.map(np.testing.assert_array_equal, tuple(together), apart)
    jax.tree.map(np.testing.assert_array_equal, stats, other_stats)


@pytest.mark.parametrize(
    "overrides", [{"model__skip_join": "sum"}, {"model__query_from": "before"}]
)
def test_skip_join_and_query_from_change_the_result(overrides):
    ours, theirs = (
        apply(*made).reconstruction for made in (make("daad", **overrides), make("daad"))
    )
    assert np.abs(ours - theirs).max() > 1e-6


@pytest.mark.parametrize("setting", ["daad", "ae_skip"])
def test_queries_before_the_activation_are_activated_for_the_decoder(setting):
    generator, variables, images = make(setting, model__query_from="before")
    after, _, _ = make(setting)
    first = apply(generator, variables, images)
    activated = apply(after, variables, images).features
    for before, one in zip(first.features, activated, strict=True):
        np.testing.assert_allclose(jax.nn.leaky_relu(before, 0.2), one, rtol=1e-5, atol=1e-6)
    maps = [jax.nn.leaky_relu(one, 0.2) for one in first.assembled]
    decoded = apply(after, variables, maps, method="decode")
    np.testing.assert_allclose(first.reconstruction, decoded, rtol=1e-5, atol=1e-6)


def test_weights_are_returned_on_request_only():
    generator, variables, images = make("daad")
    with_weights = apply(generator, variables, images, return_weights=True)
    assert with_weights.reads["scale_1"].weights.shape == (2, 4, 8)
    assert apply(generator, variables, images).reads["scale_1"].weights is None


def test_bfloat16_maps_are_read_and_returned_in_float32():
    generator, variables, images = make("daad", model__compute_dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    out = apply(generator, variables, images, return_weights=True)
    assert {one.dtype for one in (*out.features, *out.assembled)} == {jnp.dtype("bfloat16")}
    assert {leaf.dtype for leaf in jax.tree.leaves(out.reads)} == {jnp.dtype("float32")}
    assert out.reconstruction.dtype == jnp.float32


def test_metrics_of_reads_are_means_and_a_count():
    generator, variables, images = make("daad")
    output = apply(generator, variables, images)
    metrics = memory_metrics(output)
    summary = output.reads["scale_2"].summary
    np.testing.assert_allclose(metrics["memory/scale_2/entropy"], np.mean(summary.entropy))
    assert metrics["memory/scale_2/dead_reads"] == np.sum(summary.dead)
    assert len(metrics) == 12


def test_metrics_of_batches_count_unused_items_and_name_losses():
    generator, variables, images = make("daad", MNAD())
    output = apply(generator, variables, images)
    metrics = memory_metrics(output)
    names = {"unused_items", "perplexity", "compactness_loss", "separateness_loss"}
    names |= {"active_items", "largest_weight", "entropy", "dead_reads"}
    assert set(metrics) == {f"memory/scale_{i}/{name}" for i in (1, 2) for name in names}
    unused = np.sum(output.summaries["scale_1"].usage.reads == 0)
    assert metrics["memory/scale_1/unused_items"] == unused


@pytest.mark.parametrize("rule", [Threshold(), MNAD()], ids=str)
@pytest.mark.parametrize(("banks", "count"), [("one", 1), ("2x1", 2)])
def test_items_are_found_among_parameters_and_in_the_state(rule, banks, count):
    generator, variables, _ = make("daad", rule, memory__banks=banks)
    items = memory_items(generator, variables)
    assert {name: one.shape for name, one in items.items()} == {
        "scale_1": (count, 8, 64),
        "scale_2": (count, 8, 32),
    }
    assert list(scale_memories(generator)) == list(items)
