import re
import warnings

import jax
import jax.numpy as jnp
import pytest

from daad_jax import compiling, layers, program, scoring
from tests.conftest import tiny_config


def given_to_ynnpack(compiled):
    """The kinds of operation in a compiled program's YNNPACK fusions."""
    text = compiled.as_text()
    kinds = set()
    for name in re.findall(r"calls=(%[\w.-]+)[^\n]*__ynn_fusion", text):
        body = re.search(rf"^{name} .*?^}}", text, re.S | re.M).group()
        kinds |= set(re.findall(r" (convolution|dot|reduce)\(", body))
    return kinds


def compile_layer(options):
    x, kernel = jnp.ones((8, 32, 32, 16)), jnp.ones((4, 4, 16, 32))
    jitted = jax.jit(layers.down_sample, compiler_options=options)
    return jitted.lower(x, kernel).compile()


def test_the_step_and_scoring_keep_convolutions_from_ynnpack(one_device):
    if "convolution" not in given_to_ynnpack(compile_layer(None)):
        pytest.skip("this jaxlib gives it none")
    config = tiny_config(
        data__image_size=32,
        model__widths=(16, 32),
        discriminator__width=16,
        discriminator__max_width=32,
        memory__addressing="mnad",
        memory__test_update=1.0,
    )
    built = program.build_program(config, one_device)
    scorer = scoring.Scorer(config, built.shapes, one_device)
    images = jax.ShapeDtypeStruct((8, 32, 32, 1), jnp.uint8)
    arguments = (built.shapes, images, scorer._blur)
    compiled = {
        "step": built.step,
        "score": scorer._score.lower(*arguments).compile(),
        "in order": scorer._in_order.lower(*arguments).compile(),
        "usage": scorer._usage.lower(*arguments[:2], jnp.ones(8)).compile(),
    }
    for name, one in compiled.items():
        assert "dot" in given_to_ynnpack(one), name
        assert "convolution" not in given_to_ynnpack(one), name


@pytest.mark.parametrize(
    "options",
    [{"xla_cpu_gone": "1"}, {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_GONE"}],
)
def test_a_jaxlib_without_the_option_compiles_as_it_likes(options, one_device, monkeypatch, capfd):
    monkeypatch.setattr(compiling, "_CPU_OPTIONS", options)
    compiling._accepted.cache_clear()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert compiling.compiler_options(one_device) is None
    finally:
        compiling._accepted.cache_clear()
    assert capfd.readouterr() == ("", "")
