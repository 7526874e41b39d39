"""``table``: prints the results of grids as a Markdown table."""

from collections.abc import Sequence

from absl import flags

from daad_jax.cli.flags import parse_flags
from daad_jax.errors import ConfigError
from daad_jax.reports import grid_table
from daad_jax.runtime.files import user_path

_ROWS = ["category", "setting", "variant"]


def run(argv: Sequence[str]) -> None:
    """Prints the table of one or more results files.

    `argv` is "table", the files and flags. Raises ConfigError if there is no run, or if a row
    field, number or label does not exist.
    """
    values = flags.FlagValues()
    flags.DEFINE_list("rows", _ROWS, "Fields whose values make a row.", flag_values=values)
    flags.DEFINE_list("numbers", None, "The columns.", flag_values=values)
    flags.DEFINE_string("against", None, "The row to compare with.", flag_values=values)
    files = parse_flags(values, argv, positional=True)
    lines = [line for file in files for line in grid_table.read_lines(user_path(file))]
    if not lines:
        raise ConfigError(f"{', '.join(files) or 'table'}: no runs; give files of a grid's results")
    print(grid_table.render(lines, values.rows, values.numbers, values.against))
