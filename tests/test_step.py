import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from daad_jax import losses, sharding
from daad_jax.program import build_program
from daad_jax.state import build_networks, build_optimizer, count_parameters, init_state
from daad_jax.step import StepSpec, normalize_images, prepare_images, step_spec, train_step
from tests.conftest import tiny_config

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 1), dtype=np.uint8)


def initial_state(networks, optimizer):
    init = jax.jit(functools.partial(init_state, networks, optimizer))
    return init(KEY, normalize_images(jnp.asarray(IMAGES)))


@functools.cache
def make(setting="daad_plus", **overrides):
    config = tiny_config(setting, **overrides)
    networks, optimizer = build_networks(config), build_optimizer(config)
    state = initial_state(networks, optimizer)
    step = jax.jit(functools.partial(train_step, networks, optimizer, step_spec(config)))
    return config, networks, optimizer, state, step


def reference_gradients(config, networks, state, images):
    """Both gradients written out apart, with their own forwards."""
    weights = step_spec(config).weights

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
        reconstruction = out["reconstruction"]
        return reconstruction, judge(images)[0], judge(reconstruction)[0], judge

    def generator_loss(g):
        reconstruction, (_, f_real), (l_fake, f_fake), _ = forward(g, state.discriminator.params)
        return (
            weights.rec * jnp.mean((images - reconstruction) ** 2)
            + weights.adv * jnp.mean(-jax.nn.log_sigmoid(l_fake))
            + weights.ali * jnp.mean((f_real - f_fake) ** 2)
        )

    def discriminator_loss(d):
        reconstruction, (l_real, _), _, judge = forward(state.generator.params, d)
        l_fake, _ = judge(jax.lax.stop_gradient(reconstruction))[0]
        game = -jnp.mean(jax.nn.log_sigmoid(l_real) + jnp.log(1 - jax.nn.sigmoid(l_fake)))
        return weights.adv * game

    return (
        jax.jit(jax.grad(generator_loss))(state.generator.params),
        jax.jit(jax.grad(discriminator_loss))(state.discriminator.params),
    )


def test_one_forward_gives_the_gradients_of_two_apart():
    config, networks, _optimizer, state, step = make(
        data__flip_horizontal=False, data__flip_vertical=False
    )
    new, metrics, _ = step(state, IMAGES, KEY)
    images = normalize_images(jnp.asarray(IMAGES))
    g_grads, d_grads = reference_gradients(config, networks, state, images)
    np.testing.assert_allclose(
        metrics["gradient_norm/generator"], optax.tree.norm(g_grads), rtol=1e-4
    )
    np.testing.assert_allclose(
        metrics["gradient_norm/discriminator"], optax.tree.norm(d_grads), rtol=1e-4
    )
    # Adam's first moment after one step is (1 - beta1) times the gradient.
    for network, grads in ((new.generator, g_grads), (new.discriminator, d_grads)):
        jax.tree.map(
            lambda mu, grad: np.testing.assert_allclose(mu / 0.1, grad, rtol=1e-3, atol=1e-5),
            network.opt_state[0].mu,
            grads,
        )


def test_metrics_are_the_losses_and_the_discriminators_health():
    _, _, _, state, step = make()
    _, metrics, _ = step(state, IMAGES, KEY)
    weights = losses.LossWeights()
    np.testing.assert_allclose(
        metrics["loss/generator"],
        weights.rec * metrics["loss/rec"]
        + weights.adv * metrics["loss/adv"]
        + weights.ali * metrics["loss/ali"],
        rtol=1e-5,
    )
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
def test_the_generators_losses_move_no_discriminator_parameter(overrides, moves):
    _, _, _, state, step = make(**overrides)
    new, *_ = step(state, IMAGES, KEY)
    same = leaves_equal(state.discriminator.params, new.discriminator.params)
    assert all(same) != moves


def test_the_discriminators_loss_moves_no_generator_parameter():
    _, networks, _, state, _ = make()
    optimizer = optax.sgd(1.0)
    # All that is left for the generator is the adversarial loss; with its weight at zero for the
    # generator's own terms nothing may move it, while D still learns from L_ali.
    spec = StepSpec(
        weights=losses.LossWeights(rec=0.0, adv=0.0, ali=1.0),
        alignment_updates_discriminator=True,
    )
    state = initial_state(networks, optimizer)

    def step(spec):
        return jax.jit(functools.partial(train_step, networks, optimizer, spec))(state, IMAGES, KEY)

    with_alignment, *_ = step(spec)
    without, *_ = step(spec._replace(alignment_updates_discriminator=False))
    assert all(leaves_equal(with_alignment.generator.params, without.generator.params))
    assert not all(leaves_equal(with_alignment.discriminator.params, without.discriminator.params))


def test_saturating_unsquared_and_joint_choices_change_the_step():
    base = make()[4](make()[3], IMAGES, KEY)[1]
    for overrides in (
        {"loss__adversarial": "saturating"},
        {"loss__norm": "norm"},
        {"discriminator__batch_norm": "joint"},
    ):
        _, _, _, state, step = make(**overrides)
        metrics = step(state, IMAGES, KEY)[1]
        assert abs(float(metrics["loss/generator"] - base["loss/generator"])) > 1e-4


def test_settings_without_adversarial_losses_have_no_discriminator():
    _, networks, _, state, step = make("daad")
    new, metrics, _ = step(state, IMAGES, KEY)
    assert networks.discriminator is None
    assert new.discriminator is None
    assert not any(name.startswith("discriminator") for name in metrics)


def test_the_discriminator_may_meet_odd_maps():
    config = tiny_config(data__image_size=36, memory__division_rates=(1, 1, 1))  # 18, 9, 4
    networks, optimizer = build_networks(config), build_optimizer(config)
    images = jax.ShapeDtypeStruct((2, 36, 36, 1), jnp.float32)
    state = jax.eval_shape(functools.partial(init_state, networks, optimizer), KEY, images)
    step = functools.partial(train_step, networks, optimizer, step_spec(config))
    new, *_ = jax.eval_shape(step, state, images.update(dtype=jnp.uint8), KEY)
    assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, state)


def test_flips_follow_the_key_and_the_choice():
    images = jnp.asarray(IMAGES)
    plain = prepare_images(images, KEY, StepSpec())
    np.testing.assert_allclose(plain, IMAGES / 127.5 - 1, rtol=1e-5, atol=1e-6)
    flipped = np.asarray(prepare_images(images, KEY, StepSpec(flip_horizontal=True)))
    mirrored = np.asarray(plain)[:, :, ::-1]
    kinds = [
        "same" if (f == p).all() else "mirrored" if (f == m).all() else "other"
        for f, p, m in zip(flipped, np.asarray(plain), mirrored, strict=True)
    ]
    assert set(kinds) == {"same", "mirrored"}
    vertical = prepare_images(images, KEY, StepSpec(flip_vertical=True))
    upside_down = np.asarray(plain)[:, ::-1]
    assert any((v == u).all() for v, u in zip(np.asarray(vertical), upside_down, strict=True))


def test_one_device_and_eight_agree_on_losses_and_gradients():
    config = tiny_config()
    results = []
    for devices in (jax.devices()[:1], jax.devices()[:8]):
        program = build_program(config, sharding.make_mesh(devices))
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
    program = build_program(tiny_config(), sharding.make_mesh(jax.devices()[:8]))
    batch = sharding.place_batch(IMAGES.shape, IMAGES.__getitem__, program.mesh)
    state = program.init(KEY, batch)
    for leaf in jax.tree.leaves(state):
        assert leaf.sharding.device_set == set(jax.devices()[:8])


def test_parameters_are_counted_by_part():
    _config, _networks, _optimizer, state, _ = make()
    counts = count_parameters(state)
    assert counts["memory"] == 8 * (4 * 4 * 4) + 8 * (2 * 2 * 8)
    total = sum(leaf.size for leaf in jax.tree.leaves(state.generator.params))
    assert counts["generator"] + counts["memory"] == total
    assert counts["discriminator"] == sum(
        leaf.size for leaf in jax.tree.leaves(state.discriminator.params)
    )


def test_bfloat16_changes_what_is_computed_in_and_keeps_the_rest_float32():
    _, _, _, state, step = make(model__compute_dtype="bfloat16")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state)} == {"float32", "int32"}
    new, metrics, _ = step(state, IMAGES, KEY)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(new)} == {"float32", "int32"}
    assert {value.dtype.name for value in metrics.values()} == {"float32"}
    _, expected, _ = make()[4](make()[3], IMAGES, KEY)
    for name in ("loss/rec", "loss/generator", "loss/discriminator"):
        np.testing.assert_allclose(metrics[name], expected[name], rtol=0.03)
        assert metrics[name] != expected[name]
    text = step.lower(state, IMAGES, KEY).as_text()
    assert re.search(r"stablehlo.convolution.*xbf16>", text)
    assert not re.search(r"stablehlo.convolution.*xf32>", text)
