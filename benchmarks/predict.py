"""Pictures per second of `predict`: decoding alone, scoring alone, and both with the rows.

``python -m benchmarks.predict --workdir=WORKDIR PICTURES`` takes the first ``--count`` files of
folders, globs or files, and prints a Markdown table with a row for each batch size. Processor time
hardly depends on what else runs on the machine, wall-clock time does.
"""

import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from absl import flags

import daad_jax
from daad_jax.cli import guarded
from daad_jax.cli.flags import parse_flags
from daad_jax.data.inputs import list_inputs
from daad_jax.errors import ConfigError
from daad_jax.runtime.files import user_path
from daad_jax.scoring.detector import Detector
from daad_jax.scoring.predictions import Predictions
from daad_jax.scoring.stream import decode_files


def main(argv: Sequence[str]) -> None:
    """Measures and prints the table."""
    values = flags.FlagValues()
    values.set_gnu_getopt()
    flags.DEFINE_string("workdir", None, "Folder of a trained run.", flag_values=values)
    flags.DEFINE_integer("count", 2000, "Pictures to score.", flag_values=values)
    flags.DEFINE_list("batch_sizes", ["1", "32"], "Pictures at once.", flag_values=values)
    inputs = parse_flags(values, argv, positional=True)
    if not values.workdir or not inputs:
        raise ConfigError("--workdir: give the folder of a trained run, and pictures")
    listed = list_inputs(inputs, sys.stdin, without=Path("."))
    paths = listed.files[: values.count]
    what = "decoding alone | scoring alone | both, and rows | processor ms per picture"
    print(f"| batch | {what} |", "|---|---|---|---|---|", sep="\n")
    for size in map(int, values.batch_sizes):
        detector = daad_jax.load(user_path(values.workdir), batch_size=size)
        batches = [one.pixels for one in decode_files(detector, paths) if one.pixels is not None]
        detector.score_prepared(batches[0])  # compiles

        def decode(detector: Detector = detector) -> None:
            for _ in decode_files(detector, paths):
                pass

        def score(detector: Detector = detector, batches: list[np.ndarray] = batches) -> None:
            for batch in batches:
                detector.score_prepared(batch)

        def both(detector: Detector = detector) -> None:
            with tempfile.TemporaryDirectory() as folder:
                predictions = Predictions(Path(folder), detector)
                for decoded in decode_files(detector, paths):
                    predictions.append(decoded)
                predictions.close()

        parts = [_measure(work) for work in (decode, score, both)]
        rates = " | ".join(f"{len(paths) / wall:.0f}" for wall, _ in parts)
        costs = ", ".join(f"{1000 * used / len(paths):.2f}" for _, used in parts)
        print(f"| {size} | {rates} | {costs} |", flush=True)


def _measure(work: Callable[[], None]) -> tuple[float, float]:
    """The shortest of three wall-clock times and the shortest of three processor times."""
    times = []
    for _ in itertools.repeat(None, 3):
        wall, used = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - wall, time.process_time() - used))
    walls, processor = zip(*times, strict=True)
    return min(walls), min(processor)


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv)))
