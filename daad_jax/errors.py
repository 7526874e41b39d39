"""Errors that a user can correct, warnings, and helpers for their texts."""

import difflib
import sys
from collections.abc import Iterable

_SHOWN = 200


class UserError(Exception):
    """An error that the user can correct. Its text is one line.

    The text names the field or file, and says what is wrong and what to do. A command that ends
    with this error exits with `exit_code`.
    """

    exit_code = 2

    def __str__(self) -> str:
        return printable(super().__str__())  # a file name may contain line breaks


class ConfigError(UserError):
    """A config field or a flag cannot work. The message begins with its name."""


class DataError(UserError):
    """A folder or an image file cannot be used. The message names it."""


class BadFileError(DataError):
    """One image or mask file cannot be used. `data.on_bad_file` says what happens then."""

    def __init__(self, place: str, reason: str) -> None:
        """Takes the file's name, such as its path, and what is wrong with it and what to do."""
        super().__init__(f"{place}: {reason}")
        self.place, self.reason = place, reason


class CheckpointError(UserError):
    """A workdir or its checkpoint cannot be used. The message names it."""


class InUseError(CheckpointError):
    """Another process holds the lock of a workdir."""


class SaveError(UserError):
    """A checkpoint or a log could not be written. The message names it."""

    exit_code = 1


class NonFiniteError(UserError):
    """A loss, a gradient or a score is not finite."""

    exit_code = 3


class GridError(UserError):
    """Some runs of a grid failed. The other runs are complete."""

    exit_code = 1


def warn(message: str) -> None:
    """Prints one line on stderr."""
    print(f"warning: {' '.join(message.split())}", file=sys.stderr, flush=True)


def suggestion(name: str, known: Iterable[str]) -> str:
    """Returns ``did you mean 'x'?`` for the closest known name, or the list of known names."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(names)}"


def printable(text: str) -> str:
    r"""Replaces characters that are not printable by their ``\x`` or ``\u`` escapes.

    These include line breaks, marks that change the direction of text, and the bytes of a file
    name that are not UTF-8.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def shown(value: object) -> str:
    """Returns the `repr` of any value, cut to 200 characters for an error message."""
    try:
        text = repr(value)
    except ValueError:  # Python does not print integers of thousands of digits
        return "a value too long to be shown"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
