"""Costs of a step on devices that are not here, from compiled programs."""

import jax
import jax.numpy as jnp
import pytest

from daad_jax import cli
from daad_jax.cli import plan
from daad_jax.config import MeshConfig
from daad_jax.runtime import sharding
from daad_jax.train.forecast import CHIPS, Exchange, Forecast, find_exchanges, forecast
from tests.conftest import tiny_config
from tests.processes import ROOT, child


def exchanges_of(function, *shapes, items=1):
    mesh = sharding.make_mesh(jax.devices()[:8], MeshConfig(items=items))
    split, whole = sharding.batched(mesh), sharding.replicated(mesh)
    places = (split, *[whole] * (len(shapes) - 1))
    jitted = jax.jit(function, in_shardings=places, out_shardings=whole)
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return find_exchanges(jitted.lower(*arrays).compile(), 8)


def test_an_exchange_has_its_kind_its_bytes_and_its_group():
    (found,) = exchanges_of(lambda x: x.sum(0), (16, 100))
    assert (found.kind, found.group, found.size, found.times) == ("all-reduce", 8, 400, 1)
    assert "reduce_sum" in found.origin


def test_an_exchange_in_a_loop_counts_for_each_round():
    def loop(x, start):
        return jax.lax.fori_loop(0, 5, lambda _, y: (x * y[None]).sum(0) / 9, start)

    found = [one for one in exchanges_of(loop, (16, 100), (100,)) if one.kind == "all-reduce"]
    assert sum(one.times for one in found) == 5


def test_a_reduce_scatter_moves_what_all_devices_have():
    text = """
HloModule a
ENTRY %main (x: f32[1024]) -> f32[128] {
  %x = f32[1024]{0} parameter(0)
  ROOT %r = f32[128]{0} reduce-scatter(%x), replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}
}
"""

    class Program:
        def as_text(self):
            return text

    (found,) = find_exchanges(Program(), 8)
    assert (found.kind, found.group, found.size) == ("reduce-scatter", 8, 4096)


def test_the_largest_bank_of_a_model_without_memory_is_none(monkeypatch):
    def made(config, mesh, per_chip, rule):
        return Forecast(1, 1, 0, 1000 * per_chip, 0.0, 0.0, [])

    monkeypatch.setattr(plan, "forecast", made)
    chip, mesh = CHIPS["v5e"]._replace(memory=16_000), sharding.make_mesh(jax.devices()[:1])
    found = made(None, None, 2, None)
    assert plan.largest(tiny_config("ae"), mesh, chip, 2, found, None) == (16, None)


def test_a_ring_moves_an_array_twice_to_reduce_it_and_once_to_gather_it():
    chip = CHIPS["v5e"]._replace(hop=0.0)
    reduce = Exchange("all-reduce", 4, 4000, 1, "").seconds(chip)
    assert reduce == pytest.approx(2 * 3 / 4 * 4000 / chip.link)
    gather = Exchange("all-gather", 4, 4000, 3, "").seconds(chip)
    assert gather == pytest.approx(3 * 3 / 4 * 4000 / chip.link)


@pytest.mark.slow
def test_shared_banks_take_less_memory_of_each_device():
    config = tiny_config("daad", memory__items=4096)
    meshes = [sharding.make_mesh(jax.devices()[:4], MeshConfig(items=n)) for n in (1, 4)]
    whole, shared = (forecast(config, mesh, 1) for mesh in meshes)
    assert shared.state < 0.3 * whole.state
    assert shared.memory < 0.5 * whole.memory
    assert whole.batch == shared.batch == 4


PLAN = "import sys; from daad_jax import cli; sys.exit(cli.main(sys.argv[1:]))"


@pytest.mark.slow
def test_the_command_prints_a_table_of_meshes():
    flags = ["--config.data.image_size=16", "--config.model.widths=(4,8)", "--items=1,2"]
    flags += ["--config.memory.division_rates=(2,2,1)", "--config.discriminator.width=4"]
    with child(
        PLAN, "plan", "--topology=h100:2", f"--config={ROOT}/configs/folder.py", *flags
    ) as run:
        output, error = run.communicate()
    assert run.returncode == 0, error
    rows = [line.split("|")[1].strip() for line in output.splitlines() if line.startswith("| ")]
    assert rows[1:] == ["2 x 1", "1 x 2"]
    assert "largest" not in output


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("", "''; give a chip"),
        ("v9:2x2", "'v9:2x2'; give a chip"),
        ("h100:0", "'0' is not a number"),
    ],
)
def test_an_unknown_topology_is_one_line(topology, message, capsys):
    assert cli.main(["plan", f"--topology={topology}", "--config=folder"]) == 2
    assert message in capsys.readouterr().err
