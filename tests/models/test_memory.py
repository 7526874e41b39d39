import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from daad_jax.addressing import (
    MNAD,
    Entmax,
    HardShrinkage,
    NearestEMA,
    Rule,
    Softmax,
    Threshold,
    distance,
    get_similarity,
    read,
)
from daad_jax.models import blocks
from daad_jax.models.autoencoder import normalize_images
from daad_jax.models.build import build_networks
from daad_jax.models.memory import BlockMemory
from tests.conftest import tiny_config

KEY = jax.random.key(4)
MAP = jax.random.normal(KEY, (2, 16, 16, 4))
RATES = (8, 8, 1)
WEIGHT_BYTES = 4 * 2 * 64 * 50  # of MAP, RATES and 50 items


@dataclasses.dataclass(frozen=True)
class Noisy(Rule):
    """Threshold weights of similarities with noise; unlike Gumbel without state."""

    needs_key = True

    def read(self, request):
        def compare(query, items):
            similarities = request.compare(query, items)
            if request.key is None:
                return similarities
            return similarities + 0.1 * jax.random.normal(request.key, similarities.shape)

        return Threshold().read(request._replace(compare=compare))


def init(module, feature_map=MAP):
    return jax.jit(module.init)(KEY, feature_map)


def apply_with_gradients(module, variables, feature_map):
    """The outputs of a memory in training, and the gradients by its parameters and its input."""

    def loss(params, feature_map):
        outputs, _ = module.apply(
            variables | {"params": params},
            feature_map,
            train=True,
            rngs={"memory": KEY},
            mutable=["memory"],
        )
        return jnp.sum(jnp.sin(3 * outputs[0])), outputs

    gradients, outputs = jax.grad(loss, argnums=(0, 1), has_aux=True)(
        variables["params"], feature_map
    )
    return outputs, gradients


def outputs_of(rule, **options):
    module = BlockMemory(50, RATES, rule, **options)
    variables = init(module)
    return jax.jit(functools.partial(apply_with_gradients, module))(variables, MAP)


def temporary_bytes(module, shape):
    """Memory of the forward and backward pass by the compiler's analysis; nothing is run."""
    feature_map = jax.ShapeDtypeStruct(shape, jnp.float32)
    variables = jax.eval_shape(module.init, KEY, feature_map)
    program = jax.jit(functools.partial(apply_with_gradients, module))
    return program.lower(variables, feature_map).compile().memory_analysis().temp_size_in_bytes


def test_initial_items_have_the_norm_of_the_queries():
    feature_map = 0.3 * jax.random.normal(KEY, (4, 8, 8, 16))
    module = BlockMemory(items=200, rates=(2, 2, 1), init_scale=2.0)
    items = init(module, feature_map)["params"]["memory_items"]
    queries = blocks.divide(feature_map, (2, 2, 1))
    norm = np.linalg.norm(items, axis=1).mean() / np.linalg.norm(queries, axis=2).mean()
    assert items.shape == (200, 256)
    np.testing.assert_allclose(norm, 2.0, rtol=0.02)


def test_each_block_is_replaced_by_its_read():
    module = BlockMemory(50, (4, 4, 2), Softmax(), distance, temperature=0.5)
    variables = init(module)
    assembled, reads, _ = jax.jit(module.apply)(variables, MAP)
    items = variables["params"]["memory_items"]
    query = MAP[1, 4:8, 8:12, 2:].reshape(-1)
    one = jax.jit(lambda q, m: read(q, m, Softmax(), similarity=distance, temperature=0.5))(
        query, items
    )
    np.testing.assert_allclose(assembled[1, 4:8, 8:12, 2:].reshape(-1), one.block, rtol=1e-4)
    np.testing.assert_allclose(reads.block[1, (1 * 4 + 2) * 2 + 1], one.block, rtol=1e-4)


def test_each_group_of_positions_reads_its_own_bank():
    module = BlockMemory(50, (4, 4, 1), groups=(2, 2, 1))
    variables = init(module)
    bank = variables["params"]["memory_items"]
    assert bank.shape == (4, 50, 64)
    apply = jax.jit(module.apply)
    assembled, _, summary = apply(variables, MAP)
    changed = {"params": {"memory_items": bank.at[1].set(0.0)}}  # top right
    other, _, _ = apply(changed, MAP)
    differs = np.any(assembled != other, axis=(0, 3))
    assert not differs[:8, :8].any()
    assert not differs[8:].any()
    assert differs[:8, 8:].any()
    assert summary.usage.reads.shape == (4 * 50,)


def test_state_is_updated_in_training_only():
    module = BlockMemory(50, RATES, NearestEMA())
    variables = init(module)
    assert "params" not in variables
    evaluated, trained = (
        jax.jit(functools.partial(module.apply, train=train, mutable=["memory"]))(variables, MAP)[1]
        for train in (False, True)
    )
    items = variables["memory"]["state"]["memory_items"]
    np.testing.assert_array_equal(evaluated["memory"]["state"]["memory_items"], items)
    assert np.any(trained["memory"]["state"]["memory_items"] != items)


def test_a_rule_without_learned_arrays_or_state_adds_no_variables():
    variables = init(BlockMemory(50, RATES, Threshold()))
    assert jax.tree.map(jnp.shape, variables) == {"params": {"memory_items": (50, 16)}}


def test_losses_are_weighted_means_over_banks():
    rule = MNAD(compactness_weight=0.5, separateness_weight=0.25)
    module = BlockMemory(50, RATES, rule, groups=(2, 1, 1))
    _, _, summary = jax.jit(module.apply)(init(module), MAP)
    expected = 0.5 * summary.losses["compactness_loss"] + 0.25 * summary.losses["separateness_loss"]
    np.testing.assert_allclose(summary.loss, expected, rtol=1e-6)
    assert summary.loss.shape == ()
    assert outputs_of(Threshold())[0][2].loss is None


@pytest.mark.parametrize("similarity", ["cosine", "distance"])
def test_queries_of_a_bfloat16_map_are_those_that_were_read(similarity):
    feature_map = MAP.astype(jnp.bfloat16)
    module = BlockMemory(50, (4, 4, 1), Softmax(), get_similarity(similarity), groups=(2, 2, 1))
    variables = init(module, feature_map)
    compare = get_similarity(similarity)

    @jax.jit
    def both(variables, feature_map):
        assembled, reads, _ = module.apply(variables, feature_map, True)
        queries = module.queries(feature_map)
        grouped = blocks.group(queries, module.rates, module.groups)
        over_reads = jax.vmap(jax.vmap(compare, (0, None)), (0, None))
        values = jax.vmap(over_reads)(grouped, variables["params"]["memory_items"])
        return assembled, reads.weights, queries, values

    assembled, weights, queries, values = both(variables, feature_map)
    assert assembled.dtype == jnp.bfloat16
    assert queries.dtype == weights.dtype == jnp.float32
    np.testing.assert_array_equal(
        queries, blocks.divide(jnp.asarray(feature_map, jnp.float32), module.rates)
    )
    softmax = jax.nn.softmax(blocks.ungroup(values, module.rates, module.groups))
    np.testing.assert_allclose(weights, softmax, rtol=1e-6)
    np.testing.assert_array_equal(np.argmax(weights, -1), np.argmax(softmax, -1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule", [Threshold(), Entmax(), Noisy()], ids=["threshold", "entmax", "noisy"]
)
@pytest.mark.parametrize(
    "options", [{}, {"groups": (2, 2, 1)}, {"learned_temperature": True, "similarity": distance}]
)
def test_reads_in_chunks_give_the_same_results_and_gradients(rule, options):
    outputs, gradients = outputs_of(rule, **options)
    divided, divided_gradients = outputs_of(rule, chunk_bytes=WEIGHT_BYTES // 4, **options)
    assert divided[1].weights is None
    for name in outputs[1].summary._fields:
        assert getattr(divided[1].summary, name).shape == (2, 64)
    np.testing.assert_array_equal(divided[2].usage.reads, outputs[2].usage.reads)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), divided, outputs
    )

    def close(actual, expected):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())

    jax.tree.map(close, divided_gradients, gradients)


def count_chunks(module, feature_map, *, return_weights=False):
    """The number of chunks in the program of a memory: the length of its scan, or 1."""
    variables = jax.eval_shape(module.init, KEY, feature_map)
    program = jax.make_jaxpr(lambda v, x: module.apply(v, x, return_weights))(
        variables, feature_map
    )
    scans = [one for one in program.eqns if one.primitive.name == "scan"]
    return scans[0].params["length"] if scans else 1


def test_the_limit_counts_the_weights_of_all_banks():
    for options in ({}, {"groups": (2, 2, 1)}):
        # With four banks the vmapped reads of one block of each bank exist at once.
        counts = [
            count_chunks(BlockMemory(50, RATES, chunk_bytes=limit, **options), MAP)
            for limit in (0, WEIGHT_BYTES * 4, WEIGHT_BYTES // 4)
        ]
        assert counts == [1, 1, 4]


def test_eight_devices_divide_their_reads_as_one_device_does():
    config = tiny_config(
        memory__items=40_000, memory__scales="bottleneck", memory__division_rates=(4, 4, 8)
    )
    config.memory.chunk_mib = 4  # one image has 4 * 128 * 40,000 bytes of weights, 19.5 MiB

    def chunks(devices, batch):
        memory = build_networks(config, devices=devices).generator.memories[-1]
        return count_chunks(memory, jax.ShapeDtypeStruct((batch, 4, 4, 8), jnp.float32))

    assert chunks(1, 1) == 8
    assert chunks(8, 8) == chunks(1, 1)
    assert chunks(1, 8) == 64


def test_requested_weights_and_losses_come_from_one_undivided_read():
    module = BlockMemory(50, RATES, chunk_bytes=4 * 50)
    assert count_chunks(module, MAP) == 64
    assert count_chunks(module, MAP, return_weights=True) == 1
    lossy = BlockMemory(50, RATES, HardShrinkage(), chunk_bytes=4 * 50)
    assert count_chunks(lossy, MAP) == 1


def test_a_pass_in_chunks_never_holds_all_weights():
    rates, shape = (32, 32, 1), (2, 64, 64, 1)
    weights = 4 * 2 * 1024 * 2000
    assert temporary_bytes(BlockMemory(2000, rates, chunk_bytes=weights // 16), shape) < weights
    assert temporary_bytes(BlockMemory(2000, rates), shape) > 2 * weights


def test_neither_does_the_gradient_of_a_generator():
    config = tiny_config(
        memory__items=20_000, memory__scales="bottleneck", memory__division_rates=(4, 4, 8)
    )
    images = jax.ShapeDtypeStruct((8, 16, 16, 1), jnp.uint8)
    weights = 4 * 8 * 128 * 20_000

    def temporary(chunk_mib):
        config.memory.chunk_mib = chunk_mib
        generator = build_networks(config).generator

        def loss(params, rest, images):
            pixels = normalize_images(images)
            out, _ = generator.apply(
                rest | {"params": params}, pixels, train=True, mutable=["batch_stats"]
            )
            return jnp.mean(jnp.square(out.reconstruction - pixels))

        shapes = jax.eval_shape(
            lambda images: generator.init(KEY, normalize_images(images), train=True), images
        )
        params = shapes.pop("params")
        compiled = jax.jit(jax.grad(loss)).lower(params, shapes, images).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(4) < weights
    assert temporary(0) > 2 * weights
