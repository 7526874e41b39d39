import numpy as np

from daad_jax.data.batches import batch_indices, steps_per_epoch


def test_an_epoch_sees_every_image_at_most_once():
    seen = np.concatenate([batch_indices(0, step, 22, 4) for step in range(5)])
    assert steps_per_epoch(22, 4) == 5
    assert len(set(seen.tolist())) == 20


def test_epochs_and_seeds_differ():
    first = np.concatenate([batch_indices(0, step, 20, 4) for step in range(5)])
    second = np.concatenate([batch_indices(0, step, 20, 4) for step in range(5, 10)])
    other = np.concatenate([batch_indices(1, step, 20, 4) for step in range(5)])
    assert sorted(first) == sorted(second) == list(range(20))
    assert (first != second).any()
    assert (first != other).any()


def test_a_batch_depends_on_seed_and_step_alone():
    late = batch_indices(7, 123, 50, 8)
    for step in (5, 900, 0):
        batch_indices(7, step, 50, 8)
    np.testing.assert_array_equal(batch_indices(7, 123, 50, 8), late)
