"""Every rule reads a bank that devices share as it reads a bank on one device."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from daad_jax.addressing import RULES, Entmax, TopK, parse_rule
from daad_jax.addressing.selection import are_largest
from daad_jax.config import MeshConfig
from daad_jax.models.memory import BlockMemory
from daad_jax.runtime import sharding

VARIED = {str(rule): rule for rule in (*(make() for make in RULES.values()), Entmax(learned=True))}
ITEMS = 1936  # no other axis has this size; product keys need a square


def mesh_of(devices, items):
    return sharding.make_mesh(jax.devices()[:devices], MeshConfig(items=items))


def compiled_read(memory, mesh):
    """Reads of a map by a memory with losses and gradients, compiled for a mesh."""
    feature_map = jax.random.normal(jax.random.key(0), (8, 4, 4, 6))
    variables = memory.init(jax.random.key(1), feature_map[:1])

    def read(variables, feature_map):
        def total(params, feature_map):
            assembled, reads, summary = memory.apply(
                variables | {"params": params}, feature_map, memory.chunk_bytes == 0
            )
            loss = jnp.sum(jnp.square(assembled))
            if reads.weights is not None:
                loss = loss + jnp.sum(jnp.square(reads.weights))
            loss = loss if summary.loss is None else loss + 100 * summary.loss
            return loss, (assembled, summary)

        gradient = jax.value_and_grad(total, (0, 1), has_aux=True)
        return gradient(variables.get("params", {}), feature_map)

    whole, split = sharding.replicated(mesh), sharding.batched(mesh)
    places = jax.tree_util.tree_map_with_path(
        lambda path, leaf: banks(mesh, leaf) if "memory_items" in str(path) else whole, variables
    )
    jitted = jax.jit(
        sharding.on_mesh(read, mesh), in_shardings=(places, split), out_shardings=whole
    )
    return jitted.lower(variables, feature_map).compile(), (variables, feature_map)


def banks(mesh, leaf):
    parts = mesh.shape["items"]
    names = sharding.bank_axes(*leaf.shape[-2:], parts=parts)
    axes = ("items" if name else None for name in names)
    return NamedSharding(mesh, PartitionSpec(*[None] * (leaf.ndim - 2), *axes))


def assert_same_reads(memory, devices, items):
    one, arguments = compiled_read(memory, mesh_of(1, 1))
    many, _ = compiled_read(memory, mesh_of(devices, items))
    expected = one(*arguments)
    found = many(*jax.device_put(arguments, many.input_shardings[0]))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * float(np.abs(b).max() + 1))
    return many.as_text()


@pytest.mark.parametrize("name", VARIED)
@pytest.mark.parametrize("items", [4, pytest.param(8, marks=pytest.mark.slow)])
def test_a_shared_bank_is_read_like_a_whole_one_and_no_device_holds_all_weights(name, items):
    memory = BlockMemory(ITEMS, (2, 2, 1), VARIED[name], temperature=0.3)
    text = assert_same_reads(memory, 8, items)
    results = text[text.index("ENTRY") :].split("ROOT")[0]
    whole = re.findall(rf"= [a-z]+\d+\[[\d,]*\b{ITEMS}\b[\d,]*\]", results)
    gathered = [one for one in whole if not re.search(rf"\[{ITEMS}(,24)?\]", one)]
    assert gathered == []  # but the results themselves, which the test takes whole


@pytest.mark.parametrize("rule", ["threshold", "mnad", "top_k"])
def test_a_bank_of_too_few_items_is_shared_by_the_values_of_an_item(rule):
    memory = BlockMemory(7, (2, 2, 1), parse_rule(rule), temperature=0.3)
    assert sharding.bank_axes(7, 24, parts=4) == (None, "values")
    assert_same_reads(memory, 8, 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"groups": (2, 1, 1)}, {"chunk_bytes": 1}], ids=["several banks", "chunks"]
)
def test_several_banks_and_chunks_of_reads_are_shared_too(options):
    assert_same_reads(BlockMemory(16, (2, 2, 1), TopK(2), temperature=0.3, **options), 8, 4)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_the_largest_are_found_alike_on_one_device_and_on_many_with_ties(k):
    values = jnp.array([[0.0, -0.0, 1.0, 1.0, -2.0, 1.0, 3.0, 3.0], [2.0] * 8, [-0.0, 0.0] * 4])
    chosen = jax.vmap(are_largest, (0, None))(values, k)
    order = np.argsort(-np.asarray(values), axis=1, kind="stable")[:, :k]
    expected = np.zeros_like(chosen)
    np.put_along_axis(expected, order, True, axis=1)
    np.testing.assert_array_equal(chosen, expected)
    mesh = mesh_of(8, 8)
    shared = jax.jit(sharding.on_mesh(lambda x: jax.vmap(lambda y: are_largest(y, k))(x), mesh))
    np.testing.assert_array_equal(shared(values), expected)
