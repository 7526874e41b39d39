"""Trains and evaluates: the same as ``python -m daad_jax train``."""

import sys

from daad_jax.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
