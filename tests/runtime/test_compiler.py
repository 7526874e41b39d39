"""Compiler options of the networks on a CPU."""

import re
import warnings

import jax
import jax.numpy as jnp
import pytest

from daad_jax.models import layers
from daad_jax.models.build import build_networks, image_shape
from daad_jax.runtime import compiler
from daad_jax.scoring import scorer
from daad_jax.train.program import build_program
from daad_jax.train.step import step_spec
from tests.conftest import tiny_config


def operations_of_ynnpack(compiled):
    """The kinds of operation that a compiled program gives to YNNPACK."""
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


def test_training_and_scoring_do_not_use_ynnpack_for_convolutions(one_device):
    if "convolution" not in operations_of_ynnpack(compile_layer(None)):
        pytest.skip("this jaxlib uses it for no convolution")
    config = tiny_config(
        data__image_size=32,
        model__widths=(16, 32),
        discriminator__width=16,
        discriminator__max_width=32,
    )
    networks, shape = build_networks(config), (8, *image_shape(config))
    program = build_program(networks, step_spec(config), shape, one_device)
    variables, images = program.shapes.eval_variables, jax.ShapeDtypeStruct(shape, jnp.uint8)
    made = scorer.Scorer(networks, variables, config, one_device)
    score = made._score.lower(variables, images, (jnp.ones((32, 32)),) * 2)
    use = made._use.lower(variables, images, jnp.ones(8))
    compiled = {"step": program.step, "score": score.compile(), "use": use.compile()}
    for name, one in compiled.items():
        assert "dot" in operations_of_ynnpack(one), name
        assert "convolution" not in operations_of_ynnpack(one), name


@pytest.mark.parametrize(
    "options",
    [{"xla_cpu_gone": "1"}, {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_GONE"}],
)
def test_a_jaxlib_without_the_option_uses_its_defaults(options, one_device, monkeypatch, capfd):
    monkeypatch.setattr(compiler, "CPU_OPTIONS", options)
    compiler._supported_options.cache_clear()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert compiler.compiler_options(one_device) is None
    finally:
        compiler._supported_options.cache_clear()
    assert capfd.readouterr() == ("", "")


def test_compiled_programs_are_kept_in_a_folder_of_the_user(tmp_path, monkeypatch, capsys):
    set_to = {}
    monkeypatch.setattr(jax.config, "update", set_to.__setitem__)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    compiler.keep_programs(None)  # the tests' own folder stays
    assert "jax_compilation_cache_dir" not in set_to
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    compiler.keep_programs(None)
    folder = tmp_path / "cache" / "daad_jax"
    assert set_to["jax_compilation_cache_dir"] == str(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").touch()
    compiler.keep_programs(str(tmp_path / "file" / "folder"))
    assert "compiled programs are not kept (Not a directory)" in capsys.readouterr().err
