"""Evaluates the last checkpoint of ``--workdir`` again."""

import sys

from daad_jax import cli

if __name__ == "__main__":
    sys.exit(cli.run(cli.eval_main, sys.argv))
