"""Which images make the batch of a step."""

import numpy as np

from daad_jax.train.batches import BatchOrder


def test_an_epoch_uses_every_image_at_most_once():
    order = BatchOrder(0, 22, 4)
    seen = np.concatenate([order.indices(step) for step in range(5)])
    assert order.steps_per_epoch == 5
    assert len(set(seen.tolist())) == 20


def test_epochs_and_seeds_have_different_orders():
    def epoch(seed, steps):
        return np.concatenate([BatchOrder(seed, 20, 4).indices(step) for step in steps])

    first, second, other = epoch(0, range(5)), epoch(0, range(5, 10)), epoch(1, range(5))
    assert sorted(first) == sorted(second) == list(range(20))
    assert (first != second).any()
    assert (first != other).any()


def test_a_batch_depends_only_on_seed_and_step():
    order = BatchOrder(7, 50, 8)
    late = order.indices(123)
    for step in (5, 900, 0):
        order.indices(step)
    np.testing.assert_array_equal(order.indices(123), late)
