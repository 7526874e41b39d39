"""What a train step would cost on devices that are not here, from its compiled program.

The compiler reports memory, floating-point operations and bytes moved. The exchanges between
devices are read from the program's text. Published rates turn both into seconds. This is a
roofline: it assumes that computing and moving overlap, that exchanges do not, and that nothing else
takes time. Use it to compare meshes, not to promise a time.
"""

import collections
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from jax.sharding import Mesh
from jax.stages import Compiled

from daad_jax.addressing import Rule
from daad_jax.config import Config
from daad_jax.models.build import build_networks, image_shape
from daad_jax.runtime import sharding
from daad_jax.train.program import compile_step, lower_step
from daad_jax.train.step import step_spec


class Chip(NamedTuple):
    """Published rates of one chip, per second, and its memory in bytes.

    `link` is what a ring of chips moves in one direction; `hop` is the delay from one chip to the
    next, in seconds, which is an assumption.
    """

    flops: float
    memory_rate: float
    memory: float
    link: float
    hop: float = 1e-6


# From the vendors' pages. A ring uses one of the two dimensions of a TPU's torus.
CHIPS = {
    "v5e": Chip(197e12, 819e9, 16 * 2**30, 100e9),
    "v6e": Chip(918e12, 1640e9, 32 * 2**30, 224e9),
    "v4": Chip(275e12, 1228e9, 32 * 2**30, 100e9),
    "v5p": Chip(459e12, 2765e9, 95 * 2**30, 200e9),
    "a100": Chip(312e12, 2039e9, 80 * 2**30, 300e9, 3e-6),
    "h100": Chip(989e12, 3350e9, 80 * 2**30, 450e9, 3e-6),
    "h200": Chip(989e12, 4800e9, 141 * 2**30, 450e9, 3e-6),
}
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
_KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
_EXCHANGE = re.compile(rf"= (\(?.*?) ({_KINDS})(-start)?\(")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_LOOP = re.compile(r"while\(.*body=%?([\w.\-]+)")
_TRIPS = re.compile(r"known_trip_count[^\d]*(\d+)")


class Exchange(NamedTuple):
    """One kind of exchange between devices.

    `group` is the number of devices that take part together, `times` how often it happens in a
    step, and `size` its bytes on one device. `origin` is the operation that it was made for.
    """

    kind: str
    group: int
    size: int
    times: int
    origin: str

    def seconds(self, chip: Chip) -> float:
        """The time of all its happenings in a step, by rings along the dimensions of a torus."""
        passes = 2 if self.kind == "all-reduce" else 1
        if self.kind == "collective-permute":
            return self.times * (self.size / chip.link + chip.hop)
        share = (self.group - 1) / self.group
        hops = 2 * (math.ceil(math.sqrt(self.group)) - 1) if self.group > 2 else self.group - 1
        return self.times * passes * (share * self.size / chip.link + hops * chip.hop)


class Forecast(NamedTuple):
    """The costs of a train step on each chip of a mesh.

    `state` and `memory` are bytes, of the training state and of everything. `flops` and `moved`
    (bytes) are those of one step. `exchanges` come largest first.
    """

    devices: int
    batch: int
    state: int
    memory: int
    flops: float
    moved: float
    exchanges: list[Exchange]

    def compute_seconds(self, chip: Chip) -> float:
        """Seconds of a step without the exchanges."""
        return max(self.flops / chip.flops, self.moved / chip.memory_rate)

    def exchange_seconds(self, chip: Chip) -> float:
        """Seconds of all exchanges of a step."""
        return sum(one.seconds(chip) for one in self.exchanges)

    def seconds(self, chip: Chip) -> float:
        """Seconds of a step."""
        return self.compute_seconds(chip) + self.exchange_seconds(chip)

    def by_kind(self) -> dict[str, tuple[int, int]]:
        """How often each kind of exchange happens in a step, and its bytes on one chip."""
        totals: dict[str, tuple[int, int]] = collections.defaultdict(lambda: (0, 0))
        for one in self.exchanges:
            times, size = totals[one.kind]
            totals[one.kind] = times + one.times, size + one.times * one.size
        return dict(totals)


def forecast(config: Config, mesh: Mesh, per_chip: int, rule: Rule | None = None) -> Forecast:
    """Compiles the train step of a config for a mesh whose devices need not exist here.

    `per_chip` is the number of images of each chip, and `rule` that of the config. Reads no images.
    Raises ConfigError if the mesh cannot split the banks, and MemoryError if the compiler says that
    the step does not fit.
    """
    networks = build_networks(config, rule, devices=mesh.size)
    height, width, channels = image_shape(config)
    shape = (per_chip * mesh.size, height, width, channels + config.data.has_validity)
    lowered, shapes, _ = lower_step(networks, step_spec(config), shape, mesh)
    compiled = compile_step(lowered)
    memory: Any = compiled.memory_analysis()
    cost = compiled.cost_analysis() or {}
    used = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )
    return Forecast(
        mesh.size,
        shape[0],
        sharding.shard_bytes(shapes),
        int(used),
        float(cost.get("flops", 0.0)),
        float(cost.get("bytes accessed", 0.0)),
        find_exchanges(compiled, mesh.size),
    )


def find_exchanges(compiled: Compiled, devices: int) -> list[Exchange]:
    """The exchanges of a compiled program for a number of devices, largest first.

    What is in a loop counts once for each of its rounds, where the compiler knows their number.
    """
    bodies = _computations(compiled.as_text() or "")
    found: collections.Counter[Exchange] = collections.Counter()
    for exchange, times in _exchanges(bodies, "", 1, devices):
        found[exchange] += times
    listed = [one._replace(times=times) for one, times in found.items()]
    return sorted(listed, key=lambda one: one.size * one.times, reverse=True)


def _computations(text: str) -> dict[str, list[str]]:
    """The lines of each computation of a program's text by name; "" is the entry."""
    bodies: dict[str, list[str]] = {}
    name = None
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            name = "" if line.startswith("ENTRY") else match[1]
            bodies[name] = []
        elif name is not None:
            bodies[name].append(line)
    return bodies


def _exchanges(
    bodies: dict[str, list[str]], name: str, times: int, devices: int
) -> Iterator[tuple[Exchange, int]]:
    for line in bodies.get(name, []):
        if match := _EXCHANGE.search(line):
            sizes = [_size(*array) for array in _ARRAY.findall(match[1])]
            # An exchange that runs beside other work names what it takes and what it makes.
            apart = match[3] and match[2] != "all-reduce"
            size = max(sizes, default=0) if apart else sum(sizes)
            origin = re.search(r'op_name="([^"]*)"', line)
            group = _group(line, devices)
            if match[2] == "reduce-scatter" and not match[3]:
                size *= group  # the line names what each device keeps
            yield Exchange(match[2], group, size, 0, origin[1] if origin else ""), times
        elif loop := _LOOP.search(line):
            trips = _TRIPS.search(line)
            rounds = int(trips[1]) if trips else 1
            yield from _exchanges(bodies, loop[1], times * rounds, devices)


def _size(kind: str, shape: str) -> int:
    return _BYTES.get(kind, 4) * math.prod(int(one) for one in shape.split(",") if one)


def _group(line: str, devices: int) -> int:
    """How many devices take part in an exchange, in each of the ways that XLA writes it."""
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]<=", line):
        return int(match[1])
    if match := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return match[1].count(",") + 1
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", match[2]))
    return devices
