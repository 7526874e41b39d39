"""``check``: says whether a folder of images is fit to train on, and with what."""

import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from daad_jax import api
from daad_jax.cli.flags import ConfigFlags, load_config, parse_config_flags
from daad_jax.config import Config
from daad_jax.data import ALL, display_name
from daad_jax.data.sources.layout import category_names
from daad_jax.data.survey import Survey, show_picture, survey
from daad_jax.errors import ConfigError, DataError, printable
from daad_jax.evaluation.fitness import BUT, NOTE, Fitness, judge
from daad_jax.reports import text
from daad_jax.reports.fitness import check_page, kind_rows
from daad_jax.runtime import signals
from daad_jax.runtime.files import replacing, user_path

_SHOWN_PIXELS = 192
_MOST_PRINTED = 20


def run(argv: Sequence[str]) -> None:
    """Reads all pictures of a folder, prints what is in it and writes a page.

    `argv` is "check", the folder and flags. Nothing is written into the folder. Raises UserError if
    the flags cannot be used or the folder is not fit to train on.
    """
    values = flags.FlagValues()
    flags.DEFINE_string(
        "output", None, "File of the page, by default FOLDER-check.html.", flag_values=values
    )
    given = parse_config_flags(values, argv, positional=True)
    if given.folder is None:
        raise ConfigError("check: give a folder of images, such as daad-jax check my_part")
    config = load_config(given)
    output = _output(values.output, Path(config.data.located().root))
    if config.data.category == ALL:
        _ask_for_one(config, given.folder)
    with tempfile.TemporaryDirectory() as cache, signals.interruptible():
        try:
            found = survey(config.data, Path(cache))
        except DataError as error:
            raise DataError(f"not fit: {error}") from error
        fitness = judge(found, config)
        command = ""
        if fitness.is_fit:
            command = _command(given, fitness)
            api.check(_advised(given, fitness))

        def show(name: str) -> np.ndarray | None:
            return show_picture(found, name, config.data, _SHOWN_PIXELS)

        page = check_page(found, fitness, command, show)
    with replacing(output) as partial:
        partial.write_text(page, encoding="utf-8")
    _print(found, fitness, command, output)
    if not fitness.is_fit:
        raise DataError(f"{given.folder}: {fitness.verdict}")


def _output(path: str | None, root: Path) -> Path:
    """The file of the page, which must not lie in the folder of images."""
    output = user_path(path or f"{root.name}-check.html")
    if output.is_dir():
        raise ConfigError(f"--output: {output} is a folder; give a file in it")
    if not output.resolve().parent.is_dir():
        raise ConfigError(f"--output: the folder of {output} does not exist; create it")
    if output.resolve().is_relative_to(root.resolve()):
        raise ConfigError(
            f"--output: {output} would lie among the images in {root}; give a file elsewhere"
        )
    return output


def _ask_for_one(config: Config, folder: str) -> None:
    """Raises the error for a folder that holds several categories, or none."""
    try:
        names = category_names(config.data)
    except DataError as error:
        raise DataError(f"not fit: {error}") from error
    raise ConfigError(
        f"{folder}: holds {len(names)} categories; check one at a time, for example "
        f"{Path(folder, names[0])}"
    )


def _advised(given: ConfigFlags, fitness: Fitness) -> Config:
    """The config that the advice amounts to."""
    advice = {f"data.{one.field}": one.value for one in fitness.choices}
    return load_config(given._replace(overrides=given.overrides | advice))


def _command(given: ConfigFlags, fitness: Fitness) -> str:
    """The command to train with: what was given to ``check``, and what it advises."""
    words = ["daad-jax"]
    if not Path(sys.argv[0]).name.startswith("daad-jax"):
        words = ["python", "-m", "daad_jax"]
    words += ["train", given.folder or ""]
    if given.setting is not None or given.source != "folder":
        words.append(f"--config={':'.join(filter(None, (given.source, given.setting)))}")
    advice = {f"data.{one.field}": one.value for one in fitness.choices}
    for field, value in (given.overrides | advice).items():
        text = str(value).replace(" ", "") if isinstance(value, tuple) else str(value)
        words.append(f"--config.{field}={text}")
    return shlex.join(words)


def _print(found: Survey, fitness: Fitness, command: str, output: Path) -> None:
    """Prints the result, the verdict and the command last."""
    print(text.align(kind_rows(found, fitness)), end="\n\n")
    for error in found.broken[:_MOST_PRINTED]:
        print(f"cannot be used: {error}")
    if len(found.broken) > _MOST_PRINTED:
        print(f"… and {len(found.broken) - _MOST_PRINTED:,} more on the page")
    for sentence in fitness.of(NOTE):
        print(f"note: {printable(sentence)}")
    print(f"page: {display_name(output)}", end="\n\n")
    doubts = fitness.of(BUT)
    if not fitness.is_fit:
        print(*(f"- {printable(one)}" for one in doubts), sep="\n", flush=True)
        return
    print("fit, but" if doubts else "fit", *(f"- {printable(one)}" for one in doubts), sep="\n")
    print("\ntrain with")
    print(*(f"- data.{one.field}={one.value}: {one.reason}" for one in fitness.choices), sep="\n")
    print(f"\n{command}", flush=True)
