"""Reads of large banks in chunks: the same reads and gradients, in less memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from daad_jax import addressing, memory, state, step
from daad_jax.memory import BlockMemory
from daad_jax.step import step_spec
from tests.conftest import tiny_config

KEY = jax.random.key(4)
MAP = jax.random.normal(KEY, (2, 16, 16, 4))


def chunk(monkeypatch, size):
    monkeypatch.setattr(memory, "LARGE_BYTES", size)
    monkeypatch.setattr(memory, "CHUNK_BYTES", size)


def noisy(request):
    similarities = request.compare(request.query, request.items)
    if request.key is not None:
        similarities += 0.1 * jax.random.normal(request.key, similarities.shape)
    weights = addressing.threshold(similarities)
    return addressing.Answer(weights @ request.items, weights)


NOISY = addressing.Rule(noisy, needs_key=True)


def passed(module, variables, feature_map):
    """What a memory gives, and the gradients of it by its parameters and its input."""

    def loss(params, feature_map):
        assembled, reads, batch = module.apply(
            variables | {"params": params}, feature_map, train=True, rngs={"memory": KEY}
        )
        return jnp.sum(jnp.sin(3 * assembled)), (assembled, reads, batch)

    gradients, given = jax.grad(loss, argnums=(0, 1), has_aux=True)(
        variables["params"], feature_map
    )
    return given, gradients


def given_by(rule, **options):
    module = BlockMemory(50, (8, 8, 1), rule, **options)
    variables = module.init(KEY, MAP)
    return jax.jit(functools.partial(passed, module))(variables, MAP)


@pytest.mark.parametrize("rule", [addressing.threshold, addressing.entmax15, NOISY])
@pytest.mark.parametrize(
    "options", [{}, {"groups": (2, 2, 1)}, {"learned_temperature": True, "similarity": "distance"}]
)
def test_reads_in_chunks_are_the_same(rule, options, monkeypatch):
    (assembled, reads, batch), gradients = given_by(rule, **options)
    chunk(monkeypatch, 4 * 2 * 50 * 64 // 4)
    given, other_gradients = given_by(rule, **options)
    assert reads.weights is None
    for name in reads.summary._fields:
        assert getattr(given[1].summary, name).shape == (2, 64)
    np.testing.assert_array_equal(given[2].usage.reads, batch.usage.reads)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, given, (assembled, reads, batch))
    jax.tree.map(close, other_gradients, gradients)


def test_chunks_divide_the_blocks_and_stay_below_their_size():
    for images, blocks, items in ((8, 4096, 2000), (8, 16384, 500), (1, 7, 10**7), (8, 64, 500)):
        count = memory.chunk_count(images, blocks, items)
        assert blocks % count == 0
        size = 4 * images * blocks * items
        limit = memory.LARGE_BYTES if count == 1 else memory.CHUNK_BYTES * count
        assert size <= limit or count == blocks
    assert memory.chunk_count(8, 4096, 2000) == 64
    assert memory.chunk_count(8, 512, 2000) == 1  # more than a chunk, but not large


def test_weights_that_are_asked_for_come_from_one_read(monkeypatch):
    module = BlockMemory(50, (8, 8, 1))
    variables = module.init(KEY, MAP)
    chunk(monkeypatch, 4 * 50)
    assert module.apply(variables, MAP, True)[1].weights.shape == (2, 64, 50)
    lossy = BlockMemory(50, (8, 8, 1), addressing.get_rule("hard_shrinkage"))
    assert lossy.apply(variables, MAP)[2].losses["entropy_loss"].shape == ()


def test_no_pass_holds_all_weights(monkeypatch):
    """By the compiler's account; compiled only, never run."""
    images, blocks, items, size = 2, 1024, 2000, 4
    weights = 4 * images * blocks * items
    module = BlockMemory(items, (32, 32, 1))
    shape = jax.ShapeDtypeStruct((images, 64, 64, 1), jnp.float32)
    variables = jax.eval_shape(module.init, KEY, shape)
    assert variables["params"]["memory_items"].shape == (items, size)

    def temporary():
        program = jax.jit(functools.partial(passed, module))
        return program.lower(variables, shape).compile().memory_analysis().temp_size_in_bytes

    chunk(monkeypatch, weights // 16)
    assert temporary() < weights
    chunk(monkeypatch, weights)
    assert temporary() > 2 * weights


def test_neither_does_a_train_step(monkeypatch):
    config = tiny_config(
        memory__items=20_000, memory__scales="bottleneck", memory__division_rates=(4, 4, 8)
    )
    networks, optimizer = state.build_networks(config), state.build_optimizer(config)
    images = jax.ShapeDtypeStruct((8, 16, 16, 1), jnp.float32)
    shapes = jax.eval_shape(functools.partial(state.init_state, networks, optimizer), KEY, images)
    weights = 4 * 8 * 128 * 20_000

    def temporary():
        train_step = functools.partial(step.train_step, networks, optimizer, step_spec(config))
        batch = jax.ShapeDtypeStruct(images.shape, jnp.uint8)
        compiled = jax.jit(train_step, donate_argnums=0).lower(shapes, batch, KEY).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert weights > memory.LARGE_BYTES
    assert temporary() < weights
    chunk(monkeypatch, weights)
    assert temporary() > 2 * weights
