"""Eight images can be learned by heart, with the adversarial game as without it."""

import dataclasses

import numpy as np
import pytest

import daad_jax
from daad_jax.config.presets import default
from daad_jax.train.metrics_log import read_metrics
from tests.conftest import tiny_config, tiny_dataset


def last_loss(folder, setting, **overrides):
    """The reconstruction loss, a norm, at the end of training on eight crops of gravel."""
    config = tiny_config(
        setting,
        train__steps=400,
        train__learning_rate=2e-3,
        model__widths=(8, 16),
        memory__items=16,
        memory__temperature=0.05,
        data__flip_horizontal=False,
        data__flip_vertical=False,
        **overrides,
    )
    textures = daad_jax.load_dataset(default().data, "gravel").train.images
    dataset = tiny_dataset(config)
    train = dataclasses.replace(dataset.train.take(slice(8)), inputs=textures[:8, ::4, ::4])
    dataset = dataclasses.replace(dataset, train=train)
    daad_jax.fit(config, dataset, workdir=folder, log=lambda _: None)
    return float(read_metrics(folder)["loss/rec"][-1])


@pytest.mark.slow
def test_the_adversarial_game_does_not_stop_the_generator_from_overfitting(tmp_path):
    alone = last_loss(tmp_path / "daad", "daad")
    game = last_loss(tmp_path / "daad_plus", "daad_plus")
    squares = {"loss__rec_norm": "mean_squared", "loss__ali_norm": "mean_squared"}
    outweighed = np.sqrt(256 * last_loss(tmp_path / "squares", "daad_plus", **squares))
    assert alone < 0.5
    assert game < 1.6 * alone
    assert outweighed > 2 * alone  # the balance that the default avoids
