"""Encoder, memory and decoder can learn a handful of images exactly."""

import dataclasses

import numpy as np
import pytest

from daad_jax.data.sources.textures import read_photograph
from daad_jax.models.autoencoder import normalize_images
from daad_jax.models.build import build_networks
from tests.conftest import tiny_config, tiny_dataset
from tests.train.runs import fit

SIZE, COUNT, STEPS = 32, 4, 100


def few_crops(config):
    """A dataset with four crops of the gravel texture as its training images."""
    photograph = read_photograph("gravel")
    crops = np.stack([photograph[:SIZE, i * SIZE : (i + 1) * SIZE] for i in range(COUNT)])
    dataset = tiny_dataset(config)
    few = dataset.train.take(slice(COUNT))
    return dataclasses.replace(dataset, train=dataclasses.replace(few, images=crops[..., None]))


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["ae_skip", "memae_skip", "daad"])
def test_a_setting_learns_four_images(one_device, setting):
    config = tiny_config(
        setting,
        data__image_size=SIZE,
        data__flip_horizontal=False,
        data__flip_vertical=False,
        model__widths=(16, 32),
        memory__items=64,
        memory__temperature=0.05,
        train__batch_size=COUNT,
        train__learning_rate=5e-3,
        train__steps=STEPS,
    )
    if setting == "daad":
        config.memory.division_rates = (4, 4, 1)
    dataset = few_crops(config)
    state = fit(config, dataset, mesh=one_device)
    images = normalize_images(dataset.train.images)
    generator = build_networks(config).generator
    output = generator.apply(state.generator.variables, images, train=False)
    errors = np.mean(np.square(output.reconstruction - images), axis=(1, 2, 3))
    variance = np.mean(np.var(images, axis=(1, 2, 3)))
    # With a memory that always reads the same, at least 0.13 of the variance remains.
    assert (errors / variance).max() < 0.05
