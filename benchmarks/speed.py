"""Times training and scoring of DAAD+ here and in plain PyTorch, alternating in one run.

    pip install -e '.[benchmark]'
    python benchmarks/speed.py

checks that both give equal losses and gradients with the same weights, times 64 and 256 px, and
writes the tables of docs/performance.md. One process each for JAX, PyTorch and PyTorch with
`torch.compile` takes its turn while the others sleep, so that what else the machine does meets all.

    python benchmarks/speed.py --framework=jax --image_size=64 --batch_size=8 --rate=4

times one alone and prints one JSON line. ``--framework=torch`` is the better of both variants.
``--cases=256:8:8,256:64:8 --precision=bfloat16 --section=gpu`` are other sizes (image size, batch
size, division rate), bfloat16 compute, and another section of the page.
"""

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from daad_jax import config as config_lib  # noqa: E402
from daad_jax.config import Config  # noqa: E402
from daad_jax.errors import UserError  # noqa: E402
from daad_jax.models.discriminator import stage_count  # noqa: E402
from daad_jax.runtime import memory  # noqa: E402

PAGE = ROOT / "docs" / "performance.md"
VARIANTS = ("jax", "torch", "torch.compile")
TOLERANCE = 1e-4
_SCREW_IMAGES, _SCREW_EPOCHS = 320, 1000
_PRODUCT = 4096
_TURN = 0.5


class Case(NamedTuple):
    """What is timed: image size, images per batch, division rate, and the networks' widths."""

    image_size: int
    batch_size: int
    rate: int
    widths: tuple[int, ...] = (64, 128, 256, 512)
    items: int = 500
    precision: str = "float32"


def make_config(case: Case) -> Config:
    """The paper's DAAD+ at a case's sizes."""
    config = config_lib.from_setting("daad_plus")
    config.data.source = "textures"
    config.data.image_size = case.image_size
    config.model.widths = case.widths
    config.discriminator.width = case.widths[0]
    config.discriminator.max_width = case.widths[-1]
    config.memory.items = case.items
    config.memory.division_rates = (case.rate, case.rate, 1)
    config.train.batch_size = config.score.batch_size = case.batch_size
    config.model.compute_dtype = case.precision
    config_lib.validate(config)
    return config


def flops(config: Config) -> dict[str, float]:
    """Floating-point operations of one image's matrix products and convolutions, 2 per product.

    Returns:
        ``train`` and ``score``. A training step needs of the generator the forward pass and the
        gradients of inputs and weights; of the discriminator two forward passes, the gradients of
        both passes' inputs and weights for its own loss, and the reconstruction's input gradients
        for the generator's. No gradient by the image itself is needed.
    """
    size, channels, widths = config.data.network_size[0], config.data.channels, config.model.widths
    generator, first = [], 0.0
    for index, (inputs, outputs) in enumerate(zip((channels, *widths[:-1]), widths, strict=True)):
        side = size >> (index + 1)
        convolution = 2.0 * side**2 * 16 * inputs * outputs
        joined = outputs if index == len(widths) - 1 else 2 * outputs
        first = first or convolution
        generator += [convolution, 2.0 * side**2 * 16 * joined * inputs]
        generator.append(2 * 2.0 * config.memory.items * side**2 * outputs)
    stages = _discriminator_flops(config)
    train = 3 * sum(generator) - first + 7 * sum(stages) - 2 * stages[0]
    return {"train": train, "score": sum(generator) + 2 * sum(stages)}


def _discriminator_flops(config: Config) -> list[float]:
    size, widths = config.data.network_size[0], config.discriminator
    stages, inputs = [], config.data.channels
    for index in range(stage_count(size, size)):
        outputs = min(widths.width << index, widths.max_width)
        stages.append(2.0 * (size >> (index + 1)) ** 2 * 16 * inputs * outputs)
        inputs = outputs
    return stages


def random_images(case: Case, count: int) -> np.ndarray:
    """uint8 ``(count, H, W, 3)``."""
    shape = (count, case.image_size, case.image_size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


class JaxWork:
    """Our train step and scoring, as training and evaluation call them."""

    def __init__(self, case: Case) -> None:
        """Compiles; `compile_seconds` is the train step's, and of scoring the first call's."""
        import jax

        from daad_jax.models.build import build_networks
        from daad_jax.runtime import sharding
        from daad_jax.scoring.scorer import Scorer
        from daad_jax.train.program import build_program
        from daad_jax.train.step import step_spec

        self._jax, self._case = jax, case
        images = random_images(case, 4 * case.batch_size)
        config, mesh = make_config(case), sharding.make_mesh(jax.devices()[:1])
        networks = build_networks(config)
        started = time.perf_counter()
        batch_shape = (case.batch_size, *images.shape[1:])
        program = build_program(networks, step_spec(config), batch_shape, mesh)
        self.compile_seconds = {"train": time.perf_counter() - started}
        self._batch: Callable[[int], Any] = lambda step: sharding.place_batch(
            batch_shape, images[step % 4 :: 4].__getitem__, mesh
        )
        self._state = program.init(jax.random.key(0), self._batch(0))
        self._key = jax.device_put(jax.random.key(1), sharding.replicated(mesh))
        # The step donates its state; what scores gets a copy of its own.
        self._scorer = Scorer(
            networks,
            jax.tree.map(lambda leaf: leaf.copy(), self._state.eval_variables),
            config,
            mesh,
        )
        self._step, self._images = 0, images[: case.batch_size]
        self._program = program
        started = time.perf_counter()
        self.score()
        self.compile_seconds["score"] = time.perf_counter() - started

    def train(self) -> None:
        """One step on the next batch."""
        batch = self._batch(self._step)
        result = self._program.step(self._state, batch, self._key)
        self._state = result.state
        self._jax.block_until_ready((result.state, result.metrics))
        self._step += 1

    def score(self) -> None:
        """One batch."""
        self._scorer(self._images)

    def product_rate(self) -> float:
        """FLOP/s of a large square matrix product at the case's precision."""
        jnp = self._jax.numpy
        a = jnp.ones((_PRODUCT, _PRODUCT), self._case.precision)
        product = self._jax.jit(lambda a: a @ a)
        return _product_rate(lambda: product(a).block_until_ready())

    def device(self) -> tuple[str, int]:
        """The device's name and the peak of its memory in bytes."""
        device = self._jax.devices()[0]
        if device.platform == "cpu":
            return _cpu_name(), _peak_memory()
        return device.device_kind, int((device.memory_stats() or {}).get("peak_bytes_in_use", 0))


class TorchWork:
    """The same in PyTorch."""

    def __init__(self, case: Case, *, compiled: bool) -> None:
        """Builds the networks; `compile_seconds` are those of the first calls."""
        import torch

        from benchmarks.torch_daad import Daad
        from daad_jax.scoring import scores

        self._torch, self._case = torch, case
        torch.set_num_threads(_cores())  # as many as XLA takes, whatever OMP_NUM_THREADS says
        torch.manual_seed(0)
        # What XLA does with float32 on a GPU; nothing changes on a CPU.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        name = "cuda" if torch.cuda.is_available() else "cpu"
        config = make_config(case)
        self._daad = Daad(config, name, compiled=compiled, bfloat16=case.precision == "bfloat16")
        blur = scores.blur_matrix(case.image_size, config.score.map_sigma)
        self._blur = torch.as_tensor(np.asarray(blur), dtype=torch.float32, device=name)
        self._all = random_images(case, 4 * case.batch_size)
        self._rng = np.random.default_rng(0)
        self._images = self._all[: case.batch_size]
        self.compile_seconds = {}
        for phase, call in (("train", self.train), ("score", self.score)):
            started = time.perf_counter()
            call()
            self.compile_seconds[phase] = time.perf_counter() - started

    def train(self) -> None:
        """One step on a random batch."""
        self._daad.set_training(True)
        chosen = self._rng.permutation(len(self._all))[: self._case.batch_size]
        self._daad.train_step(self._all[chosen])
        self._wait()

    def score(self) -> None:
        """One batch; the results come to the host, as ours do."""
        self._daad.set_training(False)
        for value in self._daad.score(self._images, self._blur).values():
            value.float().cpu()
        self._wait()

    def product_rate(self) -> float:
        """FLOP/s of a large square matrix product at the case's precision."""
        dtype = getattr(self._torch, self._case.precision)
        a = self._torch.ones((_PRODUCT, _PRODUCT), dtype=dtype, device=self._daad.device)

        def product() -> None:
            a @ a
            self._wait()

        return _product_rate(product)

    def device(self) -> tuple[str, int]:
        """The device's name and the peak of its memory in bytes."""
        if self._daad.device.type == "cpu":
            return _cpu_name(), _peak_memory()
        cuda = self._torch.cuda
        return cuda.get_device_name(), int(cuda.max_memory_allocated())

    def _wait(self) -> None:
        if self._daad.device.type == "cuda":
            self._torch.cuda.synchronize()


def _product_rate(product: Callable[[], Any]) -> float:
    product()
    seconds = min(_seconds(product) for _ in range(5))
    return 2 * _PRODUCT**3 / seconds


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _peak_memory() -> int:
    """The process's own peak; `getrusage` would give its parent's where that is larger."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 0


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{_cores()} cores of {name}"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def make_work(variant: str, case: Case) -> JaxWork | TorchWork:
    """The work of one of `VARIANTS`."""
    if variant == "jax":
        return JaxWork(case)
    return TorchWork(case, compiled=variant == "torch.compile")


def check(case: Case) -> None:
    """Runs `largest_difference` in a process of its own, which leaves no memory behind.

    Exits with one line when the difference is above `TOLERANCE`.
    """
    command = [sys.executable, __file__, "--check", *_flags(case)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    finished = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    if finished.returncode:
        sys.exit("the check of losses and gradients failed; see its message above")
    difference = float(finished.stdout)
    print(f"losses and gradients differ by at most {difference:.1e}", flush=True)
    if not difference <= TOLERANCE:
        sys.exit(f"that is more than {TOLERANCE}")


def largest_difference(case: Case) -> float:
    """Compares losses and gradients of both networks, at the same weights and images.

    In float64: in float32 a rounding at a kink, of ReLU or of a memory weight at 1/N, gives one of
    a million values another gradient, and by it whole layers one that differs in the third digit.

    Returns:
        The largest difference, relative to a loss's value or the norm of a parameter's gradient.
    """
    import jax
    import torch

    from benchmarks.torch_daad import Daad, from_jax
    from daad_jax import init_state
    from daad_jax.models.build import Networks, build_networks
    from daad_jax.train import step

    config = make_config(case)
    networks = build_networks(config)
    pixels = jax.numpy.asarray(random_images(case, case.batch_size))
    init = jax.jit(lambda pixels: init_state(config, networks, jax.random.key(0), pixels))
    state = init(pixels)
    daad = Daad(config, "cpu", compiled=False, bfloat16=False)
    daad.load_jax(*jax.device_get(state.variables))
    daad.generator.double()
    daad.discriminator.double()
    images = np.asarray(pixels, np.float64) / 127.5 - 1.0
    theirs = daad.losses_and_gradients(torch.tensor(images).permute(0, 3, 1, 2))
    with jax.enable_x64(True):
        generator, discriminator = networks
        assert discriminator is not None
        double = Networks(
            generator.clone(
                encoder=generator.encoder.clone(dtype=np.float64),
                decoder=generator.decoder.clone(dtype=np.float64),
            ),
            discriminator.clone(dtype=np.float64),
        )
        wide = jax.tree.map(lambda leaf: leaf.astype(np.float64), jax.device_get(state))
        spec = step.step_spec(config)
        ours = jax.jit(lambda *arrays: step.gradients(double, spec, *arrays)[:3])(wide, images)
        generator_grads, discriminator_grads, metrics = jax.device_get(ours)
    differences = [
        _relative(theirs[0].item(), metrics["loss/generator"]),
        _relative(theirs[1].item(), config.loss.adv * metrics["loss/discriminator"]),
    ]
    for network, gradients, values in (
        (daad.generator, generator_grads, theirs[2]),
        (daad.discriminator, discriminator_grads, theirs[3]),
    ):
        expected = from_jax(gradients, {})
        for (name, _), value in zip(network.named_parameters(), values, strict=True):
            differences.append(_relative(value.numpy(), expected[name].numpy()))
    return max(differences)


def _relative(a: Any, b: Any) -> float:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape
    return float(np.linalg.norm(a - b)) / max(float(np.linalg.norm(b)), 1e-12)


def serve(variant: str, case: Case) -> None:
    """Answers each line on standard input, a phase's name, with the seconds that it took."""
    memory.keep_freed_memory()  # As `train.py` does, here for both.
    work = make_work(variant, case)
    calls = {"train": work.train, "score": work.score}
    print(json.dumps(work.compile_seconds), flush=True)
    for line in sys.stdin:
        phase = line.strip()
        if phase == "product":
            print(work.product_rate(), flush=True)
        elif phase == "device":
            print(json.dumps(work.device()), flush=True)
        else:
            print(_seconds(calls[phase]), flush=True)


class Worker:
    """A process that serves one variant."""

    def __init__(self, variant: str, case: Case) -> None:
        """Starts it and waits until it has compiled."""
        self.variant = variant
        command = [sys.executable, __file__, "--serve", f"--framework={variant}", *_flags(case)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment()
        )
        self.compile_seconds = json.loads(self._answer())

    def ask(self, phase: str) -> Any:
        """Sends one line and returns the answer."""
        assert self._process.stdin is not None
        print(phase, file=self._process.stdin, flush=True)
        return json.loads(self._answer())

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self.variant}: the worker ended; see its message above")
        return line


def _environment() -> dict[str, str]:
    """Leaves room for the other workers on a GPU, of which JAX would take three quarters."""
    return {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.4", **os.environ}


def _flags(case: Case) -> Iterator[str]:
    for name, value in case._asdict().items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else value
        yield f"--{name}={text}"


def measure(case: Case, variants: Sequence[str], rounds: int) -> dict[str, Any]:
    """Times variants in turn, each turn as many calls as half a second takes, or one.

    Returns:
        By variant: ``train`` and ``score``, seconds of every call; ``compile``, seconds;
        ``memory``, bytes at the peak. Beside them ``device`` and ``product``, the highest measured
        FLOP/s of a matrix product.
    """
    workers = [Worker(variant, case) for variant in variants]
    result: dict[str, Any] = {
        worker.variant: {"compile": worker.compile_seconds, "train": [], "score": []}
        for worker in workers
    }
    result["product"] = max(worker.ask("product") for worker in workers)
    for index in range(-2, rounds):  # two rounds to warm up
        for phase in ("train", "score"):
            for worker in workers:
                turn = [worker.ask(phase)]
                while sum(turn) < _TURN:
                    turn.append(worker.ask(phase))
                if index >= 0:
                    result[worker.variant][phase] += turn
    for worker in workers:
        result["device"], result[worker.variant]["memory"] = worker.ask("device")
        worker.close()
    return result


def alone(framework: str, case: Case, rounds: int) -> dict[str, Any]:
    """Medians of one framework; PyTorch's are the better of both variants for each phase."""
    variants = VARIANTS[1:] if framework == "torch" else (framework,)
    measured = measure(case, variants, rounds)
    line: dict[str, Any] = {"framework": framework}
    for phase in ("train", "score"):
        medians = [1000 * statistics.median(measured[variant][phase]) for variant in variants]
        line[f"{phase}_ms"] = min(medians)
    return {**line, **case._asdict(), "device": measured["device"]}


def table(case: Case, measured: dict[str, Any]) -> str:
    """A case's lines of docs/performance.md."""
    count = flops(make_config(case))
    lines = [
        f"### {case.image_size} px, batch {case.batch_size}, rate {case.rate}, {case.precision}",
        "",
        f"{measured['device']}. Matrix product: {measured['product'] / 1e9:.0f} GFLOP/s. A train "
        f"step is {count['train'] * case.batch_size / 1e9:.0f} GFLOP, a scored batch "
        f"{count['score'] * case.batch_size / 1e9:.0f}.",
        "",
        "| | ms, median | quartiles | ratio | images/s | GFLOP/s | of the product's | compile s "
        "| peak MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for phase in ("train", "score"):
        better = min(statistics.median(measured[name][phase]) for name in VARIANTS[1:])
        for name in VARIANTS:
            seconds = measured[name][phase]
            median = statistics.median(seconds)
            several = seconds if len(seconds) > 1 else 2 * seconds
            low, _, high = statistics.quantiles(several, n=4, method="inclusive")
            rate = count[phase] * case.batch_size / median
            ratio = f"**{median / better:.2f}**" if name == "jax" else f"{median / better:.2f}"
            lines.append(
                f"| {phase}, {name} | {1000 * median:.1f} | {1000 * low:.1f}–{1000 * high:.1f} "
                f"| {ratio} | {case.batch_size / median:.1f} | {rate / 1e9:.0f} "
                f"| {rate / measured['product']:.0%} | {measured[name]['compile'][phase]:.1f} "
                f"| {measured[name]['memory'] / 2**20:.0f} |"
            )
    if case.image_size == 256:
        steps = _SCREW_EPOCHS * (_SCREW_IMAGES // case.batch_size)
        hours = steps * statistics.median(measured["jax"]["train"]) / 3600
        lines += ["", f"{_SCREW_EPOCHS} epochs of `screw` ({_SCREW_IMAGES} images): {hours:.1f} h."]
    return "\n".join(lines)


def around_section(page: Path, section: str) -> tuple[str, str]:
    """A page up to and with a section's first mark, and from its second one on."""
    start, end = f"<!-- {section} -->", f"<!-- end of {section} -->"
    try:
        before, _, rest = page.read_text().partition(start)
    except OSError as error:
        sys.exit(f"--page: {page}: {error.strerror}")
    _, found, after = rest.partition(end)
    if not found:
        sys.exit(f"--section: {page} has no section between '{start}' and '{end}'")
    return before + start, end + after


def parse_cases(text: str, *common: Any) -> list[Case]:
    """Cases of ``image size:batch size:rate``, with commas between them."""
    try:
        sizes = [[int(number) for number in case.split(":")] for case in text.split(",")]
        return [checked(Case(size, batch, rate, *common)) for size, batch, rate in sizes]
    except ValueError:
        sys.exit(f"--cases: {text!r} is not like 64:8:4,256:8:8 (image size, batch size, rate)")


def checked(case: Case) -> Case:
    """A case that can be built; exits with one line if it cannot."""
    try:
        make_config(case)
    except UserError as error:
        sys.exit(f"{case.image_size}:{case.batch_size}:{case.rate}: {error}")
    return case


def parse_widths(text: str) -> tuple[int, ...]:
    """Numbers of channels with commas between them."""
    try:
        return tuple(int(width) for width in text.split(","))
    except ValueError:
        sys.exit(f"--widths: {text!r} is not like 64,128,256,512")


def main() -> None:
    """Parses the flags."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--framework", choices=VARIANTS)
    parser.add_argument("--cases", default="64:8:4,64:32:4,256:8:8")
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--rate", type=int, default=4)
    parser.add_argument("--widths", default="64,128,256,512")
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--section", default="cpu")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.rounds < 1:
        sys.exit(f"--rounds: {flags.rounds} must be at least 1")
    if flags.framework != "jax" and importlib.util.find_spec("torch") is None:
        sys.exit("PyTorch is missing: pip install -e '.[benchmark]'")
    common = (parse_widths(flags.widths), flags.items, flags.precision)
    case = Case(flags.image_size, flags.batch_size, flags.rate, *common)
    if flags.serve:
        serve(flags.framework, case)
        return
    if flags.check:
        print(largest_difference(case))
        return
    if flags.framework:
        print(json.dumps(alone(flags.framework, checked(case), flags.rounds)))
        return
    before, after = around_section(flags.page, flags.section)
    parts = []
    for case in parse_cases(flags.cases, *common):
        check(case._replace(batch_size=2, precision="float32"))
        parts.append(table(case, measure(case, VARIANTS, flags.rounds)))
        print(parts[-1], flush=True)
        flags.page.write_text("\n".join([before, "\n\n".join(parts), after]))


if __name__ == "__main__":
    main()
