"""Trains and evaluates; see README.md for the flags."""

import signal
import sys

if __name__ == "__main__":
    if hasattr(signal, "pthread_sigmask"):  # Imports take seconds: a signal waits for `cli.run`.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    from daad_jax import cli

    sys.exit(cli.run(cli.train_main, sys.argv))
