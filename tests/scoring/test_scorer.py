"""Batch sizes of the scorer, and scores that do not depend on them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from daad_jax.errors import NonFiniteError
from daad_jax.models.autoencoder import normalize_images
from daad_jax.models.build import build_networks
from daad_jax.runtime import sharding
from daad_jax.scoring.scorer import Scorer
from tests.conftest import tiny_config

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def networks():
    """Untrained networks and their variables."""
    built = build_networks(tiny_config())
    pixels = normalize_images(jnp.asarray(IMAGES[:8]))
    init = jax.jit(lambda module, key: module.init(key, pixels, train=True), static_argnums=0)
    return built, tuple(init(module, jax.random.key(0)) for module in built)


def make(networks, *, batch_size=32, devices=1):
    built, variables = networks
    mesh = sharding.make_mesh(jax.devices()[:devices])
    return Scorer(built, variables, tiny_config(score__batch_size=batch_size), mesh)


def test_a_single_image_is_not_padded_to_a_full_batch(networks):
    scorer = make(networks)
    assert scorer.batch_sizes == (1, 2, 8, 32)
    assert [len(batch) for _, batch in scorer.batches(IMAGES[:1])] == [1]
    assert [len(batch) for _, batch in scorer.batches(IMAGES[:5])] == [8]
    # The rest of a larger set uses the full batch, which is compiled already.
    assert [(count, len(batch)) for count, batch in scorer.batches(IMAGES)] == [(32, 32), (8, 32)]


def test_batch_sizes_are_multiples_of_the_devices(networks):
    assert make(networks, devices=8).batch_sizes == (8, 32)
    assert make(networks, batch_size=3, devices=8).batch_sizes == (8,)
    assert make(networks, batch_size=1).batch_sizes == (1,)


def test_an_image_has_the_same_score_in_every_batch_size(networks):
    scorer = make(networks)
    together = scorer(IMAGES)
    for count in (1, 2, 8):
        alone = scorer(IMAGES[:count])
        for name in ("reconstruction_score", "alignment_score"):
            values = getattr(together, name)
            difference = np.abs(getattr(alone, name) - values[:count]).max()
            assert difference <= 1e-5 * np.ptp(values)


def test_equal_networks_share_a_compiled_function(networks):
    one = make(networks)
    other = make((build_networks(tiny_config()), networks[1]))
    assert one._score is other._score
    assert one._use is other._use


def test_scores_that_are_not_finite_name_the_image(networks):
    built, (generator, discriminator) = networks
    params = jax.tree.map(lambda leaf: leaf * np.nan, generator["params"])
    scorer = make((built, (generator | {"params": params}, discriminator)))
    with pytest.raises(NonFiniteError, match="image 1 of 3: its reconstruction is not finite"):
        scorer(IMAGES[:3])
