"""Evaluates the last checkpoint of ``--workdir`` again: ``python -m daad_jax evaluate``."""

import sys

from daad_jax.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
