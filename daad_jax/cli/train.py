"""``train``: trains and evaluates one category, or each in turn."""

import contextlib
import copy
import functools
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from absl import flags

from daad_jax import addressing, api
from daad_jax.addressing import Rule
from daad_jax.cli import output
from daad_jax.cli.flags import (
    define_custom_code,
    define_distributed,
    load_config,
    parse_config_flags,
)
from daad_jax.config import Config
from daad_jax.data import ALL, Dataset, display_name, list_categories, load_dataset
from daad_jax.errors import CheckpointError
from daad_jax.evaluation.evaluate import Evaluation, write_evaluation
from daad_jax.runtime import processes
from daad_jax.runtime.files import user_path
from daad_jax.scoring.calibration import load_chosen
from daad_jax.workdir import lock
from daad_jax.workdir.run import CONFIG_FILE, check_same_run, open_run

_MAX_NAME = 180  # bytes of a folder's name


class TrainFlags(NamedTuple):
    """The flags of ``train``. The config is not validated yet.

    `workdir` is the folder of the run or, for all categories, the folder that holds their runs.
    `allow_custom_code` permits the import of a rule of the user's own. `distributed` says how to
    join other processes, as "HOST:PORT,COUNT,INDEX" or "auto", or is None.
    """

    config: Config
    workdir: Path
    allow_custom_code: bool
    distributed: str | None


class Outcome(NamedTuple):
    """Result of one run, with wall-clock times.

    `evaluation` is None in every process but the first. `evaluate_seconds` includes writing files.
    """

    evaluation: Evaluation | None
    train_seconds: float
    evaluate_seconds: float


def run(argv: Sequence[str]) -> None:
    """Trains and evaluates, writes the workdir and prints tables.

    `argv` is "train" and its flags. Raises UserError if the flags, the config, the data or the
    workdir cannot be used.
    """
    given = parse_train_flags(argv)
    config = given.config
    processes.join(given.distributed)
    rule = addressing.parse_rule(
        config.memory.addressing, allow_custom_code=given.allow_custom_code
    )
    api.check(config, rule)
    planned = plan(config, list_categories(config.data), given.workdir)
    for own, folder in planned:
        check_same_run(folder, own)
        processes.in_first(functools.partial(lock.check_free, folder))
    log: Callable[[str], None] = print if processes.is_first() else lambda _: None
    summaries = []
    for index, (own, folder) in enumerate(planned):
        if index:
            processes.check_signals()
        dataset = load_dataset(own.data, own.data.category, folder / "cache")
        where = display_name(folder)
        log(f"== {dataset.category}: {len(dataset.train)} training images -> {where}")
        show = output.show_evaluation
        outcome = train_and_evaluate(own, folder, dataset, rule, log=log, show=show)
        if outcome.evaluation is not None:
            summaries.append(outcome.evaluation.summary)
    output.show_summary(given.workdir, [folder for _, folder in planned], summaries)


def train_and_evaluate(
    config: Config,
    folder: Path,
    dataset: Dataset,
    rule: Rule,
    *,
    log: Callable[[str], None],
    show: Callable[[Path, Evaluation, Dataset], None] | None = None,
) -> Outcome:
    """Trains or resumes one run and evaluates the state that training returned.

    Several processes train and evaluate together. Then the first one writes the evaluation's files
    and calls `show` while the others wait. The folder stays locked until then. The config must be
    checked and of one category.

    Raises UserError if the folder is in use or holds another run, the images do not fit, a loss is
    not finite, or a file cannot be written.
    """
    start = time.perf_counter()
    with contextlib.ExitStack() as held:
        opened = open_run(folder, config, dataset.train.inputs)
        enter = functools.partial(held.enter_context, opened)
        state = api.fit(config, dataset, workdir=enter, rule=rule, log=log)
        trained = time.perf_counter()
        step = int(np.asarray(jax.device_get(state.step)))
        chosen = load_chosen(folder, step, config.score)
        evaluation = api.evaluate(config, state, dataset, rule=rule, calibration=chosen)

        def write() -> None:
            with held.pop_all():
                write_evaluation(folder, evaluation, dataset)
                if show is not None:
                    show(folder, evaluation, dataset)

        processes.in_first(write)
    own = evaluation if processes.is_first() else None
    return Outcome(own, trained - start, time.perf_counter() - trained)


def parse_train_flags(argv: Sequence[str]) -> TrainFlags:
    """Parses the flags of ``train`` and its folder of images, if any. `argv` begins with the verb.

    Raises ConfigError for an unknown flag, field, file or setting, or a value that cannot be read.
    """
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values)
    define_custom_code(values)
    define_distributed(values)
    given = parse_config_flags(values, argv, positional=True)
    config = load_config(given)
    if given.folder is None:
        parts = [f"{given.name}-{config.setting}", category_name(config)]
    else:
        parts = [Path(os.path.abspath(config.data.root)).name, config.data.category]
    parts = [folder_name(part) for part in parts if part not in ("", ALL)]
    workdir = user_path(values.workdir or Path("runs", "-".join(parts)))
    return TrainFlags(config, workdir, values.allow_custom_code, values.distributed)


def plan(config: Config, categories: Sequence[str], workdir: Path) -> list[tuple[Config, Path]]:
    """The config and folder of each category's run.

    Raises CheckpointError if the workdir holds a run of one category and all are asked for, or the
    other way round.
    """
    single = workdir / CONFIG_FILE
    if config.data.category != ALL:
        others = sorted(workdir.glob(f"*/{CONFIG_FILE}"))
        if others and not single.exists():
            raise CheckpointError(
                f"{workdir}: holds runs of several categories, {display_name(others[0])} for one; "
                "choose another --workdir"
            )
        return [(config, workdir)]
    if single.exists():
        raise CheckpointError(
            f"{workdir}: holds the run of one category; choose another --workdir for all of them"
        )
    return [(with_category(config, one), workdir / folder_name(one)) for one in categories]


def with_category(config: Config, category: str) -> Config:
    """A copy of a config with another `data.category`."""
    copied = copy.deepcopy(config)
    copied.data.category = category
    return copied


def category_name(config: Config) -> str:
    """The config's category, or the folder's name if `data.root` is the category itself."""
    return config.data.category or Path(config.data.root).resolve().name


def folder_name(category: str) -> str:
    """A category as the name of one folder. A class may be called "T-shirt/top".

    File systems allow names of 255 bytes, and the default workdir has more than the category in it.
    """
    name = category.replace("%", "%25").replace("/", "%2F")
    encoded = os.fsencode(name)
    if len(encoded) <= _MAX_NAME:
        return name
    digest = hashlib.blake2b(encoded, digest_size=8).hexdigest()
    return f"{encoded[: _MAX_NAME - 20].decode(errors='ignore')}-{digest}"
