"""Unreadable files, which stop the run or are skipped, and files that a user should know of."""

import contextlib
from collections.abc import Iterator

from daad_jax.config import DataConfig
from daad_jax.errors import BadFileError, DataError, printable, warn

_NAMED = 5


class BadFiles:
    """The unreadable files of one category.

    `errors` lists them in the order they were found. `notes` holds the files that are used, but not
    as it may seem, by the sentence that says how; ``{}`` in it stands for their number.
    """

    def __init__(self, config: DataConfig) -> None:
        """Takes `on_bad_file` and `max_bad_files` from a config."""
        self._skip, self._limit = config.on_bad_file == "skip", config.max_bad_files
        self.errors: list[BadFileError] = []
        self.notes: dict[str, list[str]] = {}

    def add(self, error: BadFileError) -> None:
        """Records a file that is left out.

        Raises `error` itself if `data.on_bad_file` is "stop", and DataError if more than
        `data.max_bad_files` files would be left out.
        """
        if not self._skip:
            raise error
        self.errors.append(error)
        if len(self.errors) > self._limit:
            raise DataError(
                f"data.max_bad_files: {len(self.errors)} files cannot be used so far, more than "
                f"{self._limit}; repair them or raise the limit; the first is {self.errors[0]}"
            )

    def note(self, sentence: str, place: str) -> None:
        """Records a file that is used, but not as it may seem. ``{}`` becomes the number of them.

        It may be called from several threads.
        """
        self.notes.setdefault(sentence, []).append(place)

    def warn(self, category: str) -> None:
        """Prints how many files of a category are noted or left out, and the first by name."""
        for sentence, places in sorted(self.notes.items()):
            what = sentence.format(len(places))
            warn(f"{printable(category)}: {what}; {printable(min(places))} for example")
        if not self.errors:
            return
        warn(
            f"{printable(category)}: {len(self.errors)} file(s) cannot be used and are left out "
            "(data.on_bad_file='skip')"
        )
        for error in self.errors[:_NAMED]:
            warn(str(error))
        if len(self.errors) > _NAMED:
            warn(f"… and {len(self.errors) - _NAMED} more")

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Adds a `BadFileError` raised in the context. The rest of the context is skipped."""
        try:
            yield
        except BadFileError as error:
            self.add(error)
