"""What becomes of files that cannot be used: an error, or they are left out and counted."""

from daad_jax.config import DataConfig
from daad_jax.errors import BadFileError, DataError, printable, warn

_NAMED = 5


class BadFiles:
    """The files of one category that cannot be used.

    Attributes:
        errors: one for each file that is left out, in the order in which they were met.
        notes: lines about files that are used and yet should be looked at.
    """

    def __init__(self, config: DataConfig) -> None:
        """Takes what is to become of them from a config."""
        self._skip, self._most = config.on_bad_file == "skip", config.max_bad_files
        self.errors: list[BadFileError] = []
        self.notes: list[str] = []

    def add(self, error: BadFileError) -> None:
        """Leaves a file out.

        Raises:
            BadFileError: the same one, if `data.on_bad_file` is "stop".
            DataError: if more than `data.max_bad_files` would be left out.
        """
        if not self._skip:
            raise error
        self.errors.append(error)
        if len(self.errors) > self._most:
            raise DataError(
                f"data.max_bad_files: {len(self.errors)} files cannot be used so far, more than "
                f"{self._most}; mend them or raise it; the first is {self.errors[0]}"
            )

    def warn(self, category: str) -> None:
        """Prints how many files of a category are left out, the first few by name, and the notes.

        Args:
            category: its name for people.
        """
        if self.errors:
            warn(
                f"{printable(category)}: {len(self.errors)} file(s) cannot be used and are left "
                "out (data.on_bad_file='skip')"
            )
        for listed in ([str(error) for error in self.errors], self.notes):
            for line in listed[:_NAMED]:
                warn(line)
            if len(listed) > _NAMED:
                warn(f"… and {len(listed) - _NAMED} more")
