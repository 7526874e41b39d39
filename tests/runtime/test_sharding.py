import jax
import numpy as np

from daad_jax.runtime import sharding


def test_a_batch_is_split_over_the_devices():
    mesh = sharding.make_mesh(jax.devices()[:4])
    images, asked = np.arange(24).reshape(8, 3), []

    def rows(index):
        asked.append(index)
        return images[index]

    batch = sharding.place_batch(images.shape, rows, mesh)
    np.testing.assert_array_equal(batch, images)
    assert [shard.data.shape for shard in batch.addressable_shards] == [(2, 3)] * 4
    assert sorted(index.start or 0 for index in asked) == [0, 2, 4, 6]


def test_a_tree_is_copied_to_every_device():
    mesh = sharding.make_mesh(jax.devices()[:2])
    tree = {"a": np.arange(3.0), "b": (np.int32(4), None)}
    placed = sharding.place_tree(tree, mesh)
    jax.tree.map(np.testing.assert_array_equal, placed, tree)
    for leaf in jax.tree.leaves(placed):
        assert leaf.sharding == sharding.replicated(mesh)
        assert len(leaf.addressable_shards) == 2
