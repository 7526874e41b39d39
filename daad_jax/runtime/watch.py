"""Notices when one of several processes has died or is stopped, and says which one.

Each process writes a growing number to the key-value store of `jax.distributed`, and reads those of
the others. The store is in the first process, so a store that does not answer is the first process
that does not.
"""

import os
import sys
import threading
import time
from typing import Any

import jax
from jax._src.distributed import global_state  # the store has no public name

_BEAT_SECONDS = 5.0
_LOST_SECONDS = 40.0
_FOLDER = "daad_jax/beats/"
_EXIT_CODE = 1


def store() -> Any:
    """The client of the key-value store, or None before and after the processes are connected."""
    return global_state.client


def start() -> None:
    """Watches the other processes of this run from threads, until this process ends."""
    seen = {index: (0, time.monotonic()) for index in range(jax.process_count())}
    for work in (_beat, _judge):
        threading.Thread(target=work, args=(seen,), daemon=True).start()


def wait() -> None:
    """Waits, after a failed exchange, for the line that names the lost process and ends this one.

    Returns after a minute if no process is lost.
    """
    time.sleep(_LOST_SECONDS + 4 * _BEAT_SECONDS)


def _beat(seen: dict[int, tuple[int, float]]) -> None:
    """Writes this process's number and reads those of all, every few seconds."""
    count, own = 0, jax.process_index()
    while (client := store()) is not None:
        count += 1
        try:
            client.key_value_set(f"{_FOLDER}{own}", str(count), allow_overwrite=True)
            found = dict(client.key_value_dir_get(_FOLDER))
        except Exception:  # the first process has died, or all have ended
            return
        for key, text in found.items():
            index, number = int(key.rsplit("/", 1)[-1]), int(text)
            if number != seen[index][0]:
                seen[index] = number, time.monotonic()
        seen[own] = count, time.monotonic()
        time.sleep(_BEAT_SECONDS)


def _judge(seen: dict[int, tuple[int, float]]) -> None:
    """Ends this process, with a line, when another one has not been heard of for long."""
    own = jax.process_index()
    while store() is not None:
        time.sleep(_BEAT_SECONDS / 5)
        now = time.monotonic()
        silent = [index for index, (_, when) in seen.items() if now - when > _LOST_SECONDS]
        if not silent:
            continue
        # Without an answer from the store, nothing is known about the others.
        lost = 0 if own in silent else silent[0]
        print(
            f"error: process {lost} of {len(seen)} has not answered for {_LOST_SECONDS:.0f} s: it "
            "has died or is stopped; start all processes again to resume",
            file=sys.stderr,
            flush=True,
        )
        os._exit(_EXIT_CODE)
