"""``plan``: what training would cost on devices that are not here, for each mesh of them."""

import copy
import importlib.util
import os
from collections.abc import Callable, Sequence

import jax
from absl import flags
from jax.experimental import topologies

from daad_jax import addressing
from daad_jax.addressing import Rule
from daad_jax.cli import flags as own_flags
from daad_jax.config import Config, validate
from daad_jax.errors import ConfigError, suggestion
from daad_jax.runtime import sharding
from daad_jax.train.forecast import CHIPS, Chip, Forecast, forecast

_GIB = 1 << 30
_FACTOR = 4  # a rule may need a square number of items


def run(argv: Sequence[str]) -> None:
    """Compiles the train step for a topology and prints a table of meshes.

    `argv` is "plan" and its flags. No picture is read. Raises ConfigError if the flags or the
    config cannot be used.
    """
    values = flags.FlagValues()
    help_text = "Chips, such as v5e:16x16 or h100:8."
    flags.DEFINE_string("topology", None, help_text, flag_values=values)
    flags.DEFINE_list("items", None, "Values of mesh.items to compare.", flag_values=values)
    flags.DEFINE_integer("per_chip", None, "Images of a chip.", 1, flag_values=values)
    help_text = "Also find the largest batch and bank."
    flags.DEFINE_bool("largest", False, help_text, flag_values=values)
    own_flags.define_custom_code(values)
    given = own_flags.parse_config_flags(values, argv)
    config = own_flags.load_config(given)
    validate(config)
    rule = addressing.parse_rule(
        config.memory.addressing, allow_custom_code=values.allow_custom_code
    )
    chip, devices = find_devices(values.topology)
    per_chip = values.per_chip or max(1, config.train.batch_size // len(devices))
    counts = [_count(text) for text in values.items or [str(config.mesh.items)]]
    print(f"{values.topology}: {len(devices)} chips, {per_chip} images on each\n")
    print("| mesh (data x items) | state | memory | exchanged | step | of it exchanges | fits |")
    print("|---|---|---|---|---|---|---|")
    notes: list[str] = []
    for items in counts:
        own = copy.deepcopy(config)
        own.mesh.data, own.mesh.items = 0, items
        mesh = sharding.make_mesh(devices, own.mesh)
        shape = f"{len(devices) // items} x {items}"
        try:
            found = forecast(own, mesh, per_chip, rule)
        except MemoryError as error:
            print(f"| {shape} | - | - | - | - | - | no |", flush=True)
            notes += ["", f"{shape}:", f"- does not fit: {error}"]
            continue
        print(f"| {shape} {_row(found, chip)}", flush=True)
        notes += ["", f"{shape}:", *_notes(found, chip)]
        if values.largest:
            images, bank = largest(own, mesh, chip, per_chip, found, rule)
            notes.append(f"- largest batch that fits: {images} images on each chip")
            if bank is not None:
                notes.append(f"- largest bank that fits, with {per_chip}: memory.items={bank}")
    print("\n".join(notes))


def find_devices(topology: str | None) -> tuple[Chip, Sequence[jax.Device]]:
    """The rates and the devices of a topology such as ``v5e:16x16``.

    The devices of a TPU are descriptions that libtpu makes. For a GPU they are as many of this
    machine's CPU, whose compiler splits programs alike. Raises ConfigError if there is no such
    topology, or libtpu is missing.
    """
    topology = topology or ""
    name, _, size = topology.partition(":")
    if name not in CHIPS or not size:
        raise ConfigError(
            f"--topology: {topology!r}; give a chip and its number, such as v5e:16x16 or h100:8: "
            f"{suggestion(name, CHIPS)}"
        )
    if not name.startswith("v"):
        if not size.isdecimal() or int(size) == 0:
            raise ConfigError(f"--topology: {size!r} is not a number of GPUs, such as h100:8")
        jax.config.update("jax_num_cpu_devices", int(size))
        jax.config.update("jax_platforms", "cpu")
        return CHIPS[name], jax.devices()
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError("--topology: TPUs need libtpu to compile for; pip install '.[tpu]'")
    # There is no TPU here to ask about, nor one that only one process may use.
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    jax.config.update("jax_platforms", "cpu")
    # A host has four chips, unless there is one in all.
    alone = {"chips_per_host_bounds": (1, 1, 1)} if not set(size) - {"1", "x"} else {}
    try:
        return CHIPS[name], topologies.get_topology_desc(topology, "tpu", **alone).devices
    except Exception as error:  # libtpu raises its own kinds
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"--topology: {topology!r} is none that libtpu knows ({reason})"
        ) from error


def largest(
    config: Config,
    mesh: jax.sharding.Mesh,
    chip: Chip,
    per_chip: int,
    found: Forecast,
    rule: Rule,
) -> tuple[int, int | None]:
    """The most images on a chip, and the most items of a bank, that fit beside the other.

    `found` is the forecast of the config with `per_chip` images. Memory grows with both by equal
    steps, so one more compilation of each gives the slope. Returns 0 where not even that fits, and
    None for the bank of a model without a memory.
    """
    more = _FACTOR * per_chip
    images = _most(per_chip, found, chip, lambda: forecast(config, mesh, more, rule))
    if config.memory.scales == "none":
        return images, None
    parts, items = mesh.shape[sharding.ITEMS_AXIS], config.memory.items
    larger = copy.deepcopy(config)
    larger.memory.items = _FACTOR * items
    bank = _most(items, found, chip, lambda: forecast(larger, mesh, per_chip, rule))
    return images, bank - bank % parts


def _most(size: int, found: Forecast, chip: Chip, larger: Callable[[], Forecast]) -> int:
    """The largest size that fits, from the memory of a size and of `_FACTOR` times it."""
    try:
        each = max(1.0, (larger().memory - found.memory) / ((_FACTOR - 1) * size))
    except MemoryError:
        return size
    return max(0, int((chip.memory - found.memory) / each) + size)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"--items: {text!r} is not a number of devices")
    return int(text)


def _row(found: Forecast, chip: Chip) -> str:
    exchanged = sum(size for _, size in found.by_kind().values())
    seconds, share = found.seconds(chip), found.exchange_seconds(chip) / found.seconds(chip)
    return (
        f"| {found.state / _GIB:.2f} GiB "
        f"| {found.memory / _GIB:.2f} GiB | {exchanged / 2**20:.1f} MiB | {1e3 * seconds:.2f} ms "
        f"| {100 * share:.0f} % | {'yes' if found.memory <= chip.memory else 'no'} |"
    )


def _notes(found: Forecast, chip: Chip) -> list[str]:
    lines = [
        f"- {kind}: {times} in a step, {size / 2**20:.2f} MiB"
        for kind, (times, size) in sorted(found.by_kind().items())
    ]
    if found.exchanges:
        slowest = max(found.exchanges, key=lambda one: one.seconds(chip))
        lines.append(
            f"- slowest: {slowest.kind} of {slowest.size / 2**20:.2f} MiB, {slowest.times} times "
            f"over {slowest.group} chips, {1e3 * slowest.seconds(chip):.2f} ms, for "
            f"{slowest.origin}"
        )
    return lines
