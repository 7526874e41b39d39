"""The folder of one run: its config, lock, checkpoints and logs."""
