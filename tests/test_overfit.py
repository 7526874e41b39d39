"""A handful of images can be learned by heart: what the encoder, memory and decoder are for."""

import dataclasses

import numpy as np
import pytest

from daad_jax import scoring
from daad_jax.data.textures import read_photograph
from daad_jax.training import train
from tests.conftest import tiny_config, tiny_dataset

SIZE, COUNT, STEPS = 32, 4, 100


def few_crops(config):
    """Four crops of the gravel as the training images; nothing else of the data set is used."""
    photograph = read_photograph("gravel")
    crops = np.stack([photograph[:SIZE, i * SIZE : (i + 1) * SIZE] for i in range(COUNT)])
    dataset = tiny_dataset(config)
    few = dataset.train.take(slice(COUNT))
    return dataclasses.replace(dataset, train=dataclasses.replace(few, images=crops[..., None]))


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["ae_skip", "memae_skip", "daad"])
def test_a_setting_learns_four_images_by_heart(tmp_path, one_device, setting):
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
    state = train(config, dataset, tmp_path, mesh=one_device, log=lambda _: None)
    images = dataset.train.images
    variance = np.mean(np.var(images / 127.5, axis=(1, 2, 3)))
    raw = scoring.Scorer(config, state, one_device)(images)
    # With a memory that always reads the same, at least 0.13 of the variance stays.
    assert (raw.reconstruction_score / variance).max() < 0.05
