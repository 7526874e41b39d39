"""The command line: ``python -m daad_jax VERB``, or the console script ``daad-jax VERB``."""

import signal
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code.

    SIGTERM and SIGINT are blocked while the package is imported, which takes seconds.
    `daad_jax.cli.main` unblocks them and handles a signal that arrived meanwhile. `argv` is the
    verb and its flags, by default those that the process was started with.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    from daad_jax import cli

    return cli.main(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
