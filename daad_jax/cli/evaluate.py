"""``evaluate``: evaluates the last checkpoints of a workdir again."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from daad_jax import addressing, api
from daad_jax.addressing import Rule
from daad_jax.cli import flags as own_flags
from daad_jax.cli import output
from daad_jax.config import Config
from daad_jax.data import load_dataset
from daad_jax.errors import ConfigError
from daad_jax.evaluation.evaluate import write_evaluation
from daad_jax.models.build import build_networks
from daad_jax.runtime import processes, sharding
from daad_jax.runtime.files import user_path
from daad_jax.scoring.calibration import load_chosen
from daad_jax.train.state import restore_state
from daad_jax.workdir import lock
from daad_jax.workdir.run import (
    CHANGEABLE_FIELDS,
    check_same_images,
    find_runs,
    load_config,
    write_config,
)


def run(argv: Sequence[str]) -> None:
    """Evaluates every run of a workdir, writes its files and prints tables.

    `argv` is "evaluate", the workdir and flags. Fields that do not change what was trained may be
    set; they become those of the run. A threshold that `calibrate` chose stays, unless a score
    setting that it depends on changes or `score.threshold_quantile` is given. Raises UserError if
    the flags, the workdir or the data cannot be used.
    """
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "Folder that train wrote to.", flag_values=values)
    own_flags.define_custom_code(values)
    own_flags.define_distributed(values)
    overrides, folder = own_flags.parse_overrides(values, argv, positional=True)
    if values.workdir and folder:
        raise ConfigError(f"--workdir: the workdir is given already, as {folder!r}; leave one out")
    given = values.workdir or folder
    if not given:
        raise ConfigError("--workdir: give the folder that train.py wrote to")
    workdir = user_path(given)
    processes.join(values.distributed)
    folders = find_runs(workdir)
    configs = [_changed(folder, overrides) for folder in folders]
    rules = [
        addressing.parse_rule(config.memory.addressing, allow_custom_code=values.allow_custom_code)
        for config in configs
    ]
    for config, rule in zip(configs, rules, strict=True):
        api.check(config, rule)
    anew = "score.threshold_quantile" in overrides
    summaries: list[dict[str, Any]] = []
    for one in zip(folders, configs, rules, strict=True):
        if summaries:
            processes.check_signals()
        summaries.append(_evaluate(*one, anew))
    if processes.is_first():
        output.show_summary(workdir, folders, summaries)


def _changed(folder: Path, overrides: Mapping[str, Any]) -> Config:
    """The config of a run with fields that may change after training."""
    config = load_config(folder)
    for name in overrides:
        if name not in CHANGEABLE_FIELDS or name.startswith("train."):
            raise ConfigError(
                f"{name}: belongs to the training and cannot change after it; leave it out, or "
                "train again in another --workdir"
            )
    own_flags.override(config, overrides)
    return config


def _evaluate(folder: Path, config: Config, rule: Rule, anew: bool) -> dict[str, Any]:
    """Evaluates one run, `anew` without a threshold that `calibrate` chose.

    Returns what ``evaluation.json`` holds.
    """
    mesh = sharding.make_mesh(fields=config.mesh)
    with contextlib.ExitStack() as held:
        processes.in_first(lambda: held.enter_context(lock.hold(folder)))
        dataset = load_dataset(config.data, config.data.category, folder / "cache")
        check_same_images(folder, dataset.train.inputs)
        networks = build_networks(config, rule, devices=mesh.size)
        state = restore_state(folder, config, networks, mesh)
        chosen = None if anew else load_chosen(folder, int(state.step), config.score)
        evaluation = api.evaluate(config, state, dataset, rule=rule, mesh=mesh, calibration=chosen)

        def write() -> None:
            with held.pop_all():
                write_config(folder, config)
                write_evaluation(folder, evaluation, dataset)
                output.show_evaluation(folder, evaluation, dataset)

        processes.in_first(write)
    return evaluation.summary
