"""The errors that a user can mend, warnings, and how a name is suggested."""

import difflib
import sys
from collections.abc import Iterable

_SHOWN = 200


class UserError(Exception):
    """Something that the user can mend: one line that names the culprit and what to do.

    Attributes:
        exit_code: what the process exits with when the error reaches the command line.
    """

    exit_code = 2

    def __str__(self) -> str:
        return printable(super().__str__())  # a file's name may hold line breaks


class ConfigError(UserError):
    """A config field has a value that cannot work; the message begins with the field's name."""


class DataError(UserError):
    """A folder or an image file cannot be used; the message names it."""


class BadFileError(DataError):
    """One image or mask of many cannot be used; `data.on_bad_file` says what comes of it.

    Attributes:
        place: what the message calls the file, its path for example.
        reason: what is wrong with it and what to do.
    """

    def __init__(self, place: str, reason: str) -> None:
        """Takes the two parts of the message."""
        super().__init__(f"{place}: {reason}")
        self.place, self.reason = place, reason


class CheckpointError(UserError):
    """A workdir or its checkpoint cannot be used; the message names it."""


class SaveError(UserError):
    """A checkpoint or a log could not be written; the message names it."""

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


def printable(text: str) -> str:
    r"""Text for people: what is no printable character is written as its ``\x`` or ``\u`` escape.

    That holds for line breaks, for characters that turn the direction of writing, and for the
    bytes of a file name that are not UTF-8.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def shown(value: object) -> str:
    """Returns a value as an error message shows it, whatever it is: at most 200 characters."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write whole numbers of thousands of digits.
        return "a value too long to be shown"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
