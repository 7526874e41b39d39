"""The command line behind ``train.py`` and ``eval.py``."""

import contextlib
import difflib
import os
import re
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from daad_jax import (
    addressing,
    allocator,
    checkpoint,
    html_report,
    interruption,
    lock,
    processes,
    report,
    training,
)
from daad_jax import config as config_lib
from daad_jax.config import Config
from daad_jax.data import ALL, Dataset, display_name, list_categories, load_dataset
from daad_jax.errors import CheckpointError, ConfigError, UserError, suggestion
from daad_jax.evaluation import evaluate

_DEFAULT_CONFIG = Path(__file__).parent.parent / "configs" / "default.py"
_LENGTH = ("train.epochs", "train.steps")


def run(main: Callable[[Sequence[str]], None], argv: Sequence[str]) -> int:
    """Runs a command and turns what a user can mend into one line and an exit code.

    Args:
        main: takes the arguments, the program's name first.
        argv: the arguments.

    Returns:
        0, or what the process exits with: 2 for bad input, 3 for a loss that is not finite, 75
        when SIGTERM or SIGINT asked it to stop and the same command goes on, 1 when a file cannot
        be written. A second signal ends the process with 128 and the signal's number.
    """
    allocator.keep_freed_memory()
    try:
        with interruption.watch():
            interruption.check()  # of the time of the imports
            main(argv)
    except UserError as error:
        return _fail(str(error), error.exit_code)
    except interruption.Interrupted as stop:
        print(f"interrupted by {stop}; the same command goes on", file=sys.stderr, flush=True)
        return interruption.EXIT_CODE
    except MemoryError:
        return _fail("out of memory; lower data.image_size or data.memory_limit_mb", 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", 1)
    return 0


def train_main(argv: Sequence[str]) -> None:
    """``train.py``: trains and evaluates one category, or each in turn.

    Raises:
        UserError: for anything that the user can mend.
    """
    values = flags.FlagValues()
    flags.DEFINE_string("distributed", None, "HOST:PORT,COUNT,INDEX or auto.", flag_values=values)
    config, workdir, allowed = parse_train_flags(argv, values)
    config_lib.validate(config)
    addressing.permit(config.memory.addressing, allowed=allowed)
    if values.distributed:
        processes.join(values.distributed)
    categories = list_categories(config)
    runs = _plan(config, categories, workdir)
    for run_config, folder in runs:
        checkpoint.check_same_run(folder, run_config)
        if processes.is_first():
            lock.check_free(folder)
    say: Callable[[str], None] = print if processes.is_first() else _say_nothing
    results = []
    for (run_config, folder), category in zip(runs, categories, strict=True):
        dataset = load_dataset(run_config, category, folder / "cache")
        where = display_name(folder)
        say(f"== {dataset.category}: {len(dataset.train)} training images -> {where}")
        training.train(run_config, dataset, folder, log=say)
        results += _evaluate_in_first(folder, dataset)
    _summarize(workdir, [folder for _, folder in runs], results)


def eval_main(argv: Sequence[str]) -> None:
    """``eval.py``: evaluates the last checkpoints of a workdir again.

    Raises:
        UserError: for anything that the user can mend.
    """
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "The run's folder.", flag_values=values)
    define_custom_code(values)
    parse_flags(values, argv)
    if not values.workdir:
        raise ConfigError("--workdir: give the folder that train.py wrote to")
    results = []
    workdir = Path(values.workdir).expanduser()
    folders = find_runs(workdir)
    for folder in folders:
        config = checkpoint.load_config(folder)
        addressing.permit(config.memory.addressing, allowed=values.allow_custom_code)
        with lock.hold(folder):
            dataset = load_dataset(config, config.data.category, folder / "cache")
            results.append(_evaluate(folder, dataset))
    _summarize(workdir, folders, results)


def find_runs(workdir: Path) -> list[Path]:
    """The folders of a workdir that hold a run: itself, or its subfolders, sorted.

    Raises:
        CheckpointError: if there is none.
    """
    if (workdir / checkpoint.CONFIG_FILE).exists():
        return [workdir]
    if not workdir.is_dir():
        raise CheckpointError(f"{workdir}: is not a folder; give the --workdir of a training run")
    runs = sorted(path.parent for path in workdir.glob(f"*/{checkpoint.CONFIG_FILE}"))
    if not runs:
        raise CheckpointError(f"{workdir}: no run there; train first with train.py --workdir")
    first = checkpoint.load_config(runs[0])
    for run in runs[1:]:
        other = checkpoint.load_config(run)
        other.data.category = first.data.category
        if other != first:
            raise CheckpointError(
                f"{workdir}: {runs[0].name} and {run.name} differ in more than the category; give "
                "the --workdir of one of them"
            )
    return runs


def parse_train_flags(
    argv: Sequence[str], values: flags.FlagValues | None = None
) -> tuple[Config, Path, bool]:
    """Parses ``--config=FILE[:SETTING]``, ``--config.FIELD=VALUE`` and train.py's own flags.

    Args:
        argv: the arguments, the program's name first.
        values: holds more flags, which get their values; used once.

    Returns:
        The config, not yet validated, the workdir, and whether custom code is allowed.

    Raises:
        ConfigError: for an unknown flag, field, file or setting, or a value that cannot be read.
    """
    values = values or flags.FlagValues()
    flags.DEFINE_string("workdir", None, "Where the run is kept.", flag_values=values)
    define_custom_code(values)
    config = parse_config(argv, values)
    name = f"{config_path(argv).stem}-{config.setting}"
    if config.data.category != ALL:
        name += f"-{folder_name(category_name(config))}"
    workdir = Path(values.workdir or Path("runs") / name).expanduser()
    return config, workdir, values.allow_custom_code


def define_custom_code(values: flags.FlagValues) -> None:
    """Defines ``--allow_custom_code``, see `daad_jax.addressing.permit`."""
    flags.DEFINE_bool(
        "allow_custom_code", False, "Import a rule that the config names.", flag_values=values
    )


def parse_config(argv: Sequence[str], values: flags.FlagValues) -> Config:
    """Parses ``--config=FILE[:SETTING]``, ``--config.FIELD=VALUE`` and a command's own flags.

    Args:
        argv: the arguments, the program's name first.
        values: holds the command's own flags, which get their values; used once.

    Returns:
        The config, not yet validated.

    Raises:
        ConfigError: for an unknown flag, field, file or setting, or a value that cannot be read.
    """
    _check_overrides(argv)
    path = config_path(argv)
    # The loader reuses the module of the last config file, and what was defined there.
    sys.modules.pop("config_config", None)
    try:
        config_flags.DEFINE_config_file(
            "config",
            os.fspath(_DEFAULT_CONFIG),
            "Config file, and after a colon one of the settings.",
            flag_values=values,
            sys_argv=list(argv),
        )
        parse_flags(values, argv)
        config = values.config
    except UserError:
        raise
    except Exception as error:  # A config file is Python: it can fail in any way.
        raise ConfigError(f"--config: {path} cannot be used ({error!r}); mend it") from error
    if not isinstance(config, Config):
        raise ConfigError(f"--config: get_config() of {path} must return a daad_jax Config")
    config.data.root = os.path.expanduser(config.data.root)
    settle_length(config, [name for name in _LENGTH if _overridden(argv, name)])
    return config


def with_setting(argv: Sequence[str], setting: str) -> list[str]:
    """The arguments with another setting of the same config file."""
    changed = list(argv)
    for index in reversed(range(len(changed))):
        if re.match(r"--?config=", changed[index]):
            del changed[index]
        elif re.fullmatch(r"--?config", changed[index]):
            del changed[index : index + 2]
    # The config comes first: its fields' flags are known only once it is read.
    return [changed[0], f"--config={config_path(argv)}:{setting}", *changed[1:]]


def settle_length(config: Config, given: Collection[str]) -> None:
    """Lets epochs win over the steps of a config file.

    Args:
        config: changed in place.
        given: the fields that were set by hand.

    Raises:
        ConfigError: if both were.
    """
    if "train.epochs" in given:
        if "train.steps" in given:
            raise ConfigError("train.epochs: give it or train.steps, not both")
        config.train.steps = None


def category_name(config: Config) -> str:
    """The config's category, or the name of its folder where the root is the category itself."""
    return config.data.category or Path(config.data.root).resolve().name


def _overridden(argv: Sequence[str], field: str) -> bool:
    return any(re.match(rf"--?config\.{re.escape(field)}(=|$)", argument) for argument in argv)


def _evaluate(folder: Path, dataset: Dataset) -> dict[str, Any]:
    """Evaluates a run, prints its table and writes its report; returns the summary."""
    with lock.hold(folder):
        evaluation = evaluate(folder, dataset)
        print(report.evaluation_table(evaluation.summary))
        _write_report(lambda: html_report.write_report(folder, evaluation, dataset))
    return evaluation.summary


def _evaluate_in_first(folder: Path, dataset: Dataset) -> list[dict[str, Any]]:
    """Evaluates in the first process, for which the others wait; its summary, and nothing there."""
    results: list[dict[str, Any]] = []
    held = contextlib.ExitStack()

    def work() -> None:
        with held:
            results.append(_evaluate(folder, dataset))

    # The others wait by the lock: no collective waits for as long as an evaluation may take.
    processes.in_first(lambda: held.enter_context(lock.hold(folder)))
    processes.in_first(work, meanwhile=lambda: lock.wait_until_free(folder))
    return results


def _say_nothing(line: str) -> None:
    pass


def _summarize(workdir: Path, folders: list[Path], results: list[dict[str, Any]]) -> None:
    if len(results) > 1:
        print(report.summary_table(results))
        names = [folder.name for folder in folders]
        _write_report(lambda: html_report.write_summary(workdir, results, names))


def _write_report(write: Callable[[], Path]) -> None:
    try:
        with interruption.anywhere():
            print(f"report: {display_name(write())}", end="\n\n", flush=True)
    except Exception as error:  # No picture is worth the categories that are still to be trained.
        print(
            f"warning: {html_report.REPORT_FILE} could not be written: {error!r}",
            file=sys.stderr,
            flush=True,
        )


def _plan(config: Config, categories: list[str], workdir: Path) -> list[tuple[Config, Path]]:
    """Each category's own config and folder.

    Raises:
        CheckpointError: if the workdir holds a run of one category where all are asked for, or
            the other way round.
    """
    single = workdir / checkpoint.CONFIG_FILE
    if config.data.category != ALL:
        others = sorted(workdir.glob(f"*/{checkpoint.CONFIG_FILE}"))
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
    planned = []
    for category in categories:
        own = config_lib.from_dict(config_lib.to_dict(config))
        own.data.category = category
        planned.append((own, workdir / folder_name(category)))
    return planned


def folder_name(category: str) -> str:
    """A category as the name of one folder; a class may be called "T-shirt/top"."""
    return category.replace("%", "%25").replace("/", "%2F")


def parse_flags(
    values: flags.FlagValues, argv: Sequence[str], *, positional: bool = False
) -> list[str]:
    """Parses flags.

    Args:
        values: holds the flags, which get their values.
        argv: the arguments, the program's name first.
        positional: whether arguments without dashes are taken.

    Returns:
        The arguments without dashes.

    Raises:
        ConfigError: for an unknown flag, a value that cannot be read, or a stray argument.
    """
    try:
        rest = values(list(argv))
    except flags.UnrecognizedFlagError as error:
        raise ConfigError(
            f"--{error.flagname}: no such flag; {_flag_hint(values, error)}"
        ) from error
    except (flags.Error, ValueError, TypeError) as error:
        # A config file's own trouble comes as its whole trace, the reason in the last line.
        lines = str(error).strip().splitlines()
        raise ConfigError(lines[0] if len(lines) < 3 else f"{lines[0]} {lines[-1]}") from error
    if len(rest) > 1 and not positional:
        raise ConfigError(f"{rest[1]}: not understood; flags begin with -- and use =")
    return list(rest[1:])


def _flag_hint(values: flags.FlagValues, error: flags.UnrecognizedFlagError) -> str:
    known = [name for name in values if "." not in name]
    close = difflib.get_close_matches(error.flagname, known, n=1)
    return f"did you mean --{close[0]}?" if close else f"known: --{', --'.join(sorted(known))}"


def _check_overrides(argv: Sequence[str]) -> None:
    path = config_path(argv)
    if path.is_file() and path.suffix != ".py":
        raise ConfigError(f"--config: {path} is not a Python file; give one like configs/folder.py")
    if not path.is_file():
        known = sorted(file.name for file in _DEFAULT_CONFIG.parent.glob("*.py"))
        raise ConfigError(
            f"--config: no file {path}; {suggestion(path.name, known)} (in the configs folder)"
        )
    fields = config_lib.field_types()
    for argument in argv[1:]:
        match = re.match(r"--?(?:no)?config\.([^=]*)", argument)
        if match and match[1] not in fields:
            raise ConfigError(
                f"--config.{match[1]}: no such config field; {suggestion(match[1], fields)}"
            )


def config_path(argv: Sequence[str]) -> Path:
    """The file that --config names, without the setting; the last one counts."""
    given = os.fspath(_DEFAULT_CONFIG)
    for index, argument in enumerate(argv):
        if re.match(r"--?config=", argument):
            given = argument.split("=", 1)[1]
        elif re.fullmatch(r"--?config", argument) and index + 1 < len(argv):
            given = argv[index + 1]
    return Path(given.split(":", 1)[0])


def _fail(message: str, code: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    processes.leave(code)
    return code
