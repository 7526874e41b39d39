"""Evaluates the last checkpoint of ``--workdir`` again."""

import signal
import sys

if __name__ == "__main__":
    if hasattr(signal, "pthread_sigmask"):  # Imports take seconds: a signal waits for `cli.run`.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    from daad_jax import cli

    sys.exit(cli.run(cli.eval_main, sys.argv))
