import copy
import functools
import itertools
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from daad_jax import config as config_lib
from daad_jax.addressing import MNAD, NearestEMA, ProductKey, TopK, cosine, distance
from daad_jax.errors import ConfigError
from daad_jax.models import backbones
from daad_jax.models.build import build_networks, image_shape
from tests.conftest import tiny_config

KEY = jax.random.key(0)
ENCODER = """
    import flax.linen as nn
    import jax.numpy as jnp

    class Pooled(nn.Module):
        width: int = 6

        @nn.compact
        def __call__(self, images, *, train):
            fine = nn.Dense(self.width)(nn.avg_pool(images, (4, 4), (4, 4)))
            return fine, nn.avg_pool(fine, (2, 2), (2, 2))

    class Enlarged(nn.Module):
        channels: int
        times: int = 2

        @nn.compact
        def __call__(self, maps, *, train):
            fine, coarse = maps
            joined = jnp.concatenate([fine, coarse.repeat(2, 1).repeat(2, 2)], axis=-1)
            return jnp.tanh(nn.Dense(self.channels)(joined)).repeat({times}, 1).repeat({times}, 2)

    def build(config):
        return Pooled(), Enlarged(config.data.channels)
"""


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"data__image_size": 18}, r"data.image_size: 18 is not a multiple of 4"),
        (
            {"memory__division_rates": (3, 2, 1)},
            r"memory.division_rates: rate 3 does not divide the height of scale 1, 8 x 8 x 4",
        ),
        (
            {"memory__division_rates": (8, 8, 1)},
            r"memory.division_rates: rate 8 does not divide the height of scale 2, 4 x 4 x 8",
        ),
        (
            {"memory__division_rates": ((2, 2, 1), (2, 2, 16))},
            r"memory.division_rates: rate 16 does not divide the channels of scale 2",
        ),
        (
            {"memory__division_rates": ((2, 2, 1),) * 3},
            r"memory.division_rates: .* for each of the 2 scales",
        ),
        ({"memory__banks": "rows"}, r"memory.banks: 'rows' is not 'one', 'position'"),
        (
            {"memory__banks": "3x1"},
            r"memory.banks: 3x1 does not divide the 2 x 2 blocks of scale 1",
        ),
        (
            {"memory__banks": "4x4", "memory__division_rates": ((4, 4, 1), (2, 2, 1))},
            r"memory.banks: 4x4 does not divide the 2 x 2 blocks of scale 2",
        ),
        ({"memory__similarity": "cosin"}, r"memory.similarity: .*'cosin'.*did you mean 'cosine'"),
        ({"memory__addressing": "treshold"}, r"memory.addressing: .*did you mean 'threshold'"),
        ({"memory__addressing": "my_rules:own"}, r"memory.addressing: .*allow_custom_code"),
        (
            {
                "memory__addressing": "product_key",
                "memory__items": 9,
                "memory__division_rates": (4, 4, 8),
                "memory__scales": "bottleneck",
            },
            r"^memory\.addressing: product_key",
        ),
        (
            {"memory__addressing": "nearest_ema", "memory__frozen": True},
            r"memory.frozen: nearest_ema moves the items",
        ),
        (
            {"memory__addressing": "mnad", "memory__frozen": True},
            r"memory.frozen: mnad moves the items",
        ),
        ({"memory__addressing": "top_k(k=9)"}, r"memory\.\w+: .*9"),
        ({"memory__addressing": "product_key(k=2)"}, r"memory\.\w+: .*8"),
        (
            {"discriminator__feature_layer": 2},
            r"discriminator.feature_layer: 2 is not one of the 2 stages .* at 16 px",
        ),
        ({"discriminator__feature_layer": -3}, r"discriminator.feature_layer: -3"),
        ({"model__backbone": "dcgam"}, r"model.backbone: no backbone 'dcgam'.*'dcgan'"),
        ({"model__backbone": "__init__"}, r"model.backbone: no backbone '__init__'"),
    ],
)
def test_shapes_that_cannot_work_are_named(overrides, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build_networks(tiny_config(**overrides))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "overrides"),
    [
        (TopK(k=9), {}),
        (ProductKey(), {}),
        (MNAD(), {"memory__frozen": True}),
        (NearestEMA(), {"memory__frozen": True}),
    ],
    ids=str,
)
def test_a_given_rule_is_checked_too(rule, overrides):
    with pytest.raises(ConfigError, match=r"^memory\."):
        build_networks(tiny_config(**overrides), rule)


def test_what_is_not_built_is_not_checked():
    without_memory = tiny_config("ae", memory__division_rates=(7, 7, 7), memory__banks="9x9")
    build_networks(without_memory)
    bottleneck = {"memory__scales": "bottleneck", "memory__division_rates": (2, 2, 8)}
    build_networks(tiny_config(**bottleneck))  # 8 does not divide the channels of scale 1
    build_networks(tiny_config("daad", discriminator__feature_layer=9))


def test_each_scale_gets_its_rates_and_groups():
    config = tiny_config(
        memory__division_rates=("pixel", (2, 4, 1)),
        memory__banks="position",
        memory__similarity="distance",
        memory__learned_temperature=True,
        memory__init_scale=3.0,
        memory__chunk_mib=2,
        memory__frozen=True,
    )
    rule = TopK(k=2)
    first, second = build_networks(config, rule, devices=4).generator.memories
    assert (first.rates, first.groups) == ((8, 8, 1), (8, 8, 1))
    assert (second.rates, second.groups) == ((2, 4, 1), (2, 4, 1))
    for memory in (first, second):
        assert memory.rule is rule
        assert memory.similarity is distance
        assert (memory.items, memory.temperature, memory.init_scale) == (8, 0.5, 3.0)
        assert memory.learned_temperature
        assert memory.frozen
        assert memory.chunk_bytes == 4 * 2 * 2**20
    assert build_networks(tiny_config()).generator.memories[0].similarity is cosine


@pytest.mark.parametrize("banks", ["one", "2x1"])
def test_networks_are_hashable_values(banks):
    build = build_networks
    config = tiny_config(memory__banks=banks)
    assert build(config) == build(copy.deepcopy(config))
    assert hash(build(config)) == hash(build(copy.deepcopy(config)))
    others = [
        build(tiny_config(memory__banks=banks, **{name: value}))
        for name, value in {
            "memory__addressing": "threshold(cut=0.5)",
            "memory__items": 9,
            "memory__temperature": 0.25,
            "memory__similarity": "dot",
            "model__widths": (4, 16),
            "model__skip_join": "sum",
            "model__compute_dtype": "bfloat16",
            "discriminator__width": 8,
        }.items()
    ]
    for one, other in itertools.combinations([build(config), *others], 2):
        assert one != other


@pytest.mark.parametrize("setting", ["ae", "daad_plus"])
def test_a_discriminator_is_built_for_the_settings_that_train_one(setting):
    networks = build_networks(tiny_config(setting))
    assert (networks.discriminator is not None) == (setting == "daad_plus")


def add_backbone(monkeypatch, folder, name, times):
    (folder / f"{name}.py").write_text(textwrap.dedent(ENCODER).replace("{times}", str(times)))
    monkeypatch.setattr(backbones, "__path__", [*backbones.__path__, str(folder)])


def test_another_backbone_is_one_file_and_one_config_value(monkeypatch, tmp_path):
    add_backbone(monkeypatch, tmp_path, "pooled", times=4)
    config = tiny_config(model__backbone="pooled", memory__division_rates=(2, 2, 3))
    config_lib.validate(config)
    generator = build_networks(config).generator
    images = jax.random.uniform(KEY, (2, *image_shape(config)), minval=-1.0)
    variables = jax.jit(functools.partial(generator.init, train=True))(KEY, images)
    rest = {name: value for name, value in variables.items() if name != "params"}

    def loss(params):
        out, _ = generator.apply(
            rest | {"params": params}, images, train=True, mutable=["batch_stats", "memory"]
        )
        return jnp.mean(jnp.square(out.reconstruction - images)), out

    gradients, out = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    assert out.reconstruction.shape == images.shape
    assert [one.shape for one in out.features] == [(2, 4, 4, 6), (2, 2, 2, 6)]
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradients))


def test_rates_are_checked_against_the_maps_of_another_backbone(monkeypatch, tmp_path):
    add_backbone(monkeypatch, tmp_path, "pooled_rates", times=4)
    config = tiny_config(model__backbone="pooled_rates", memory__division_rates=(2, 2, 4))
    with pytest.raises(ConfigError, match="rate 4 does not divide the channels of scale 1, 4 x 4"):
        build_networks(config)


def test_a_decoder_that_does_not_restore_the_image_shape_is_named(monkeypatch, tmp_path):
    add_backbone(monkeypatch, tmp_path, "pooled_small", times=2)
    config = tiny_config(model__backbone="pooled_small", memory__division_rates=(2, 2, 3))
    with pytest.raises(ConfigError, match=r"model.backbone: pooled_small .*\(8, 8, 1\)"):
        build_networks(config)
