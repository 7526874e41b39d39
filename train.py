"""Trains and evaluates; see README.md for the flags."""

import sys

from daad_jax import cli

if __name__ == "__main__":
    sys.exit(cli.run(cli.train_main, sys.argv))
