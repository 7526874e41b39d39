"""The errors that a user can mend, warnings, and how a name is suggested."""

import difflib
import sys
from collections.abc import Iterable


class UserError(Exception):
    """Something that the user can mend: one line that names the culprit and what to do.

    Attributes:
        exit_code: what the process exits with when the error reaches the command line.
    """

    exit_code = 2


class ConfigError(UserError):
    """A config field has a value that cannot work; the message begins with the field's name."""


class DataError(UserError):
    """A folder or an image file cannot be used; the message names it."""


class CheckpointError(UserError):
    """A workdir or its checkpoint cannot be used; the message names it."""


class SaveError(UserError):
    """A checkpoint could not be written; the message names it and the one before it."""

    exit_code = 1


class NonFiniteError(UserError):
    """Training met a loss or gradient that is not finite."""

    exit_code = 3


class GridError(UserError):
    """Some runs of a grid failed; the others are done."""

    exit_code = 1


def warn(message: str) -> None:
    """Prints one line on stderr, for what a user should know though the work goes on."""
    print(f"warning: {' '.join(message.split())}", file=sys.stderr, flush=True)


def suggestion(name: str, known: Iterable[str]) -> str:
    """Returns ``did you mean 'x'?`` for the closest known name, else the known names."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(names)}"
