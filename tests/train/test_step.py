"""The train step: gradients, losses, augmentation, sharding and types."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from daad_jax.models.autoencoder import normalize_images
from daad_jax.models.build import build_networks
from daad_jax.models.restoration import corrupt
from daad_jax.runtime import sharding
from daad_jax.train import losses
from daad_jax.train.losses import LOSSES, LossSpec, Term
from daad_jax.train.state import AdamSpec, count_parameters, init_state
from daad_jax.train.step import StepSpec, loss_gradients, make_train_step, prepare_images, step_spec
from tests.conftest import tiny_config
from tests.train.runs import program_of

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 1), dtype=np.uint8)
PLAIN = StepSpec(LossSpec(()), AdamSpec(1e-3))


@functools.cache
def make(setting="daad_plus", **overrides):
    """Networks, spec, state at step 0 and jitted step of a config."""
    config = tiny_config(setting, **overrides)
    networks, spec = build_networks(config), step_spec(config)
    init = jax.jit(functools.partial(init_state, networks, spec.adam))
    state = init(KEY, normalize_images(jnp.asarray(IMAGES)))
    return networks, spec, state, jax.jit(make_train_step(networks, spec))


def reference_gradients(networks, weight, state, images):
    """Both gradients, each from its own forward pass."""

    def forward(g, d):
        out, _ = networks.generator.apply(
            {"params": g, "batch_stats": state.generator.batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        variables = {"params": d, "batch_stats": state.discriminator.batch_stats}
        judge = functools.partial(
            networks.discriminator.apply, variables, train=True, mutable=["batch_stats"]
        )
        reconstruction = out.reconstruction
        return reconstruction, judge(images)[0], judge(reconstruction)[0], judge

    def generator_loss(g):
        reconstruction, (_, f_real), (l_fake, f_fake), _ = forward(g, state.discriminator.params)
        return (
            weight("rec") * jnp.mean((images - reconstruction) ** 2)
            + weight("adv") * jnp.mean(-jax.nn.log_sigmoid(l_fake))
            + weight("ali") * jnp.mean((f_real - f_fake) ** 2)
        )

    def discriminator_loss(d):
        reconstruction, (l_real, _), _, judge = forward(state.generator.params, d)
        l_fake, _ = judge(jax.lax.stop_gradient(reconstruction))[0]
        game = -jnp.mean(jax.nn.log_sigmoid(l_real) + jnp.log(1 - jax.nn.sigmoid(l_fake)))
        return weight("adv") * game

    return (
        jax.jit(jax.grad(generator_loss))(state.generator.params),
        jax.jit(jax.grad(discriminator_loss))(state.discriminator.params),
    )


@pytest.mark.slow
def test_one_forward_gives_the_same_gradients_as_two():
    plain = {"data__flip_horizontal": False, "data__flip_vertical": False}
    networks, spec, state, step = make(
        **plain, loss__rec_norm="mean_squared", loss__ali_norm="mean_squared"
    )
    new, metrics, _ = step(state, IMAGES, KEY)
    images = normalize_images(jnp.asarray(IMAGES))
    g_grads, d_grads = reference_gradients(networks, spec.loss.weight, state, images)
    norms = optax.tree.norm(g_grads), optax.tree.norm(d_grads)
    np.testing.assert_allclose(metrics["gradient_norm/generator"], norms[0], rtol=1e-4)
    np.testing.assert_allclose(metrics["gradient_norm/discriminator"], norms[1], rtol=1e-4)
    # Adam's first moment after one step is (1 - beta1) times the gradient.
    for network, grads in ((new.generator, g_grads), (new.discriminator, d_grads)):
        jax.tree.map(
            lambda mu, grad: np.testing.assert_allclose(mu / 0.1, grad, rtol=1e-3, atol=1e-5),
            network.opt_state[0].mu,
            grads,
        )


def test_the_metrics_have_all_losses_norms_and_summaries():
    _, _, state, step = make()
    _, metrics, _ = step(state, IMAGES, KEY)
    expected = sum(w * metrics[f"loss/{n}"] for n, w in (("rec", 50), ("adv", 0.5), ("ali", 0.5)))
    np.testing.assert_allclose(metrics["loss/generator"], expected, rtol=1e-5)
    assert 0 < metrics["discriminator/real"] < 1
    assert 0 < metrics["discriminator/fake"] < 1
    assert {"gradient_norm/generator", "gradient_norm/discriminator"} <= set(metrics)
    assert "memory/scale_1/active_items" in metrics


def leaves_equal(a, b):
    return [
        bool((x == y).all()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    ]


@pytest.mark.parametrize(
    ("overrides", "moves"),
    [
        ({"loss__adv": 0.0, "loss__ali": 0.5}, False),
        ({"loss__adv": 0.5, "loss__ali": 0.5}, True),
        ({"loss__adv": 0.0, "loss__alignment_updates_discriminator": True}, True),
    ],
)
def test_the_discriminator_moves_only_by_its_own_loss(overrides, moves):
    _, _, state, step = make(**overrides)
    new, metrics, _ = step(state, IMAGES, KEY)
    same = leaves_equal(state.discriminator.params, new.discriminator.params)
    assert all(same) != moves
    assert ("gradient_norm/discriminator" in metrics) == moves
    statistics = state.discriminator.batch_stats, new.discriminator.batch_stats
    assert not all(leaves_equal(*statistics))


def test_an_untrained_discriminator_gets_no_gradient():
    """Its weights' gradients and the backward pass of its own loss are not even traced."""
    convolutions = {}
    for name, overrides in (("trained", {}), ("untrained", {"loss__adv": 0.0})):
        networks, spec, state, _ = make(**overrides)
        text = str(jax.make_jaxpr(make_train_step(networks, spec))(state, IMAGES, KEY))
        convolutions[name] = text.count("conv_general_dilated[")
    layers = 2 * 2  # two convolutions, each applied to real and reconstructed images
    # Own loss: gradients of weights and inputs. Generator's loss: gradients of weights.
    assert convolutions["trained"] - convolutions["untrained"] >= 2 * layers


def test_the_discriminators_loss_moves_no_generator_parameter():
    networks, _, state, _ = make()

    def step(alignment):
        loss = LossSpec(
            (Term("ali", 1.0, LOSSES["ali"]),), alignment_updates_discriminator=alignment
        )
        return jax.jit(make_train_step(networks, PLAIN._replace(loss=loss)))(state, IMAGES, KEY)

    both, one = step(True).state, step(False).state
    assert all(leaves_equal(both.generator.params, one.generator.params))
    assert not all(leaves_equal(both.discriminator.params, one.discriminator.params))


@pytest.mark.parametrize(
    "overrides",
    [
        {"loss__adversarial": "saturating"},
        {"loss__rec_norm": "mean_squared", "loss__ali_norm": "root_mean_squared"},
        {"discriminator__batch_norm": "joint"},
    ],
)
def test_choices_of_the_config_change_the_loss(overrides):
    losses = []
    for choice in ({}, overrides):
        _, _, state, step = make(**choice)
        losses.append(float(step(state, IMAGES, KEY).metrics["loss/generator"]))
    assert abs(losses[0] - losses[1]) > 1e-4


@pytest.mark.slow
def test_loss_gradients_are_those_of_the_weighted_losses_by_the_reconstruction():
    flips = {"data__flip_horizontal": False, "data__flip_vertical": False}
    networks, spec, state, _ = make(**flips, loss__rec_norm="mean_squared")
    found = jax.jit(functools.partial(loss_gradients, networks, spec))(state, IMAGES, KEY)
    images = normalize_images(jnp.asarray(IMAGES))
    variables, options = state.generator.variables, {"train": True, "mutable": ["batch_stats"]}
    rebuilt = networks.generator.apply(variables, images, **options)[0].reconstruction
    by_hand = 50 * 2 * np.linalg.norm(images - rebuilt) / images.size
    np.testing.assert_allclose(found["reconstruction_gradient/rec"], by_hand, rtol=1e-4)

    def adversarial(reconstruction):
        judge = functools.partial(networks.discriminator.apply, state.discriminator.variables)
        logits = judge(reconstruction, **options)[0].logits
        return 0.5 * jnp.mean(-jax.nn.log_sigmoid(logits))

    by_hand = np.linalg.norm(jax.grad(adversarial)(rebuilt))
    np.testing.assert_allclose(found["reconstruction_gradient/adv"], by_hand, rtol=1e-3)
    assert found["reconstruction_gradient/ali"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rotate", "inpaint", "stain"])
def test_the_generator_sees_corrupted_images_and_the_losses_clean_ones(kind):
    flips = {"data__flip_horizontal": False, "data__flip_vertical": False}
    _, spec, state, step = make("daad", **flips, train__corruption=kind)
    _, metrics, _ = step(state, IMAGES, KEY)
    networks, _, _, plain = make("daad", **flips)
    _, clean, _ = plain(state, IMAGES, KEY)
    assert abs(metrics["loss/rec"] - clean["loss/rec"]) > 1e-6
    images = prepare_images(jnp.asarray(IMAGES), KEY, spec)
    noise = jax.random.fold_in(jax.random.fold_in(KEY, 0), 0x6D656D)
    seen = corrupt(kind, jax.random.fold_in(noise, 1), images)
    options = {"train": True, "mutable": ["batch_stats"]}
    rebuilt = networks.generator.apply(state.generator.variables, seen, **options)[0]
    expected = losses.example_norm(jnp.square(images - rebuilt.reconstruction)).mean()
    np.testing.assert_allclose(metrics["loss/rec"], expected, rtol=1e-5)


def test_settings_without_adversarial_losses_have_no_discriminator():
    networks, _, state, step = make("daad")
    new, metrics, _ = step(state, IMAGES, KEY)
    assert networks.discriminator is None
    assert new.discriminator is None
    assert not any("discriminator" in name for name in metrics)


def test_maps_of_odd_sizes_keep_all_shapes():
    config = tiny_config(data__image_size=36, memory__division_rates=(1, 1, 1))  # 18, 9, 4
    networks, spec = build_networks(config), step_spec(config)
    images = jax.ShapeDtypeStruct((2, 36, 36, 1), jnp.float32)
    state = jax.eval_shape(functools.partial(init_state, networks, spec.adam), KEY, images)
    step = make_train_step(networks, spec)
    new, *_ = jax.eval_shape(step, state, images.update(dtype=jnp.uint8), KEY)
    assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, state)


def test_flips_follow_the_key_and_the_choice():
    images = jnp.asarray(IMAGES)
    plain = prepare_images(images, KEY, PLAIN)
    np.testing.assert_allclose(plain, IMAGES / 127.5 - 1, rtol=1e-5, atol=1e-6)
    flipped = np.asarray(prepare_images(images, KEY, PLAIN._replace(flip_horizontal=True)))
    mirrored = np.asarray(plain)[:, :, ::-1]
    kinds = [
        "same" if (f == p).all() else "mirrored" if (f == m).all() else "other"
        for f, p, m in zip(flipped, np.asarray(plain), mirrored, strict=True)
    ]
    assert set(kinds) == {"same", "mirrored"}
    vertical = prepare_images(images, KEY, PLAIN._replace(flip_vertical=True))
    upside_down = np.asarray(plain)[:, ::-1]
    assert any((v == u).all() for v, u in zip(np.asarray(vertical), upside_down, strict=True))


def test_one_device_and_eight_agree_on_losses_and_gradients():
    config = tiny_config()
    results = []
    for devices in (jax.devices()[:1], jax.devices()[:8]):
        program = program_of(config, sharding.make_mesh(devices))
        batch = sharding.place_batch(IMAGES.shape, IMAGES.__getitem__, program.mesh)
        state = program.init(KEY, batch)
        key = jax.device_put(KEY, sharding.replicated(program.mesh))
        new, metrics, finite = program.step(state, batch, key)
        assert finite.first_offender() is None
        moments = new.generator.opt_state[0].mu, new.discriminator.opt_state[0].mu
        results.append(jax.device_get((metrics, moments)))
    (one, one_mu), (eight, eight_mu) = results
    assert len(jax.devices()) >= 8
    for name in one:
        np.testing.assert_allclose(one[name], eight[name], rtol=2e-4, atol=1e-6, err_msg=name)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-6), one_mu, eight_mu
    )


def test_parameters_are_created_on_every_device_of_the_mesh():
    program = program_of(tiny_config(), sharding.make_mesh(jax.devices()[:8]))
    batch = sharding.place_batch(IMAGES.shape, IMAGES.__getitem__, program.mesh)
    state = program.init(KEY, batch)
    for leaf in jax.tree.leaves(state):
        assert leaf.sharding.device_set == set(jax.devices()[:8])


def test_parameters_are_counted_by_part():
    state = make()[2]
    counts = count_parameters(state)
    assert counts["memory"] == 8 * (4 * 4 * 4) + 8 * (2 * 2 * 8)
    total = sum(leaf.size for leaf in jax.tree.leaves(state.generator.params))
    assert counts["generator"] + counts["memory"] == total
    assert counts["discriminator"] == sum(
        leaf.size for leaf in jax.tree.leaves(state.discriminator.params)
    )


@pytest.mark.slow
def test_bfloat16_is_used_by_convolutions_only():
    _, _, state, step = make(model__compute_dtype="bfloat16")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state)} == {"float32", "int32"}
    new, metrics, _ = step(state, IMAGES, KEY)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(new)} == {"float32", "int32"}
    assert {value.dtype.name for value in metrics.values()} == {"float32"}
    _, _, other_state, other_step = make()
    expected = other_step(other_state, IMAGES, KEY).metrics
    for name in ("loss/rec", "loss/generator", "loss/discriminator"):
        np.testing.assert_allclose(metrics[name], expected[name], rtol=0.03)
        assert metrics[name] != expected[name]
    text = step.lower(state, IMAGES, KEY).as_text()
    assert re.search(r"stablehlo.convolution.*xbf16>", text)
    assert not re.search(r"stablehlo.convolution.*xf32>", text)


def with_valid(valid):
    return np.concatenate([IMAGES, np.broadcast_to(valid, IMAGES.shape).astype(np.uint8)], axis=-1)


def test_where_all_pixels_count_the_step_is_the_one_without_the_channel():
    _, _, state, step = make()
    plain, masked = (step(state, images, KEY).metrics for images in (IMAGES, with_valid(255)))
    for name, value in plain.items():
        np.testing.assert_allclose(masked[name], value, rtol=1e-3, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("norm", ["mean_squared", "norm", "root_mean_squared"])
def test_pixels_that_do_not_count_have_no_part_in_the_reconstruction_loss(norm):
    valid = np.full((8, 16, 16, 1), 255)
    valid[:, 4:, :6] = 0
    plain = {"data__flip_horizontal": False, "data__flip_vertical": False}
    networks, _, state, step = make("ae", **plain, loss__rec_norm=norm)
    pixels = normalize_images(jnp.asarray(IMAGES))
    reconstruct = jax.jit(functools.partial(networks.generator.apply, train=True, mutable=True))
    made = reconstruct(state.generator.variables, pixels)[0].reconstruction
    squares = np.square(np.asarray(made - pixels))[valid > 0].reshape(8, -1)
    size = 16 * 16  # a norm is weighted up to the whole image
    expected = {
        "mean_squared": squares.mean(),
        "norm": np.sqrt(squares.mean(1) * size).mean(),
        "root_mean_squared": np.sqrt(squares.mean(1)).mean(),
    }
    loss = step(state, with_valid(valid), KEY).metrics["loss/rec"]
    np.testing.assert_allclose(loss, expected[norm], rtol=1e-5)


def test_what_does_not_count_has_no_gradient():
    spec = LossSpec((Term("rec", 1.0, LOSSES["rec"]), Term("l1", 1.0, LOSSES["l1"])))
    images = normalize_images(jnp.asarray(IMAGES))
    valid = jnp.ones((8, 16, 16, 1)).at[:, 4:, :6].set(0.0)

    def loss(made):
        kept = jnp.where(valid > 0, made, images)
        return losses.generator_loss(losses.StepOutputs(images, kept, valid=valid), spec)[0]

    slope = jax.jit(jax.grad(loss))(jnp.zeros_like(images))
    assert (slope[valid == 0] == 0).all()
    assert (slope[valid > 0] != 0).any()
