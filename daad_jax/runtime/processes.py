"""Several processes that train one run together, connected by `jax.distributed`.

Each process computes its part of every batch, of training and of evaluation, and writes its part of
each checkpoint. Only the first process writes other files. All processes use the workdir, so it
must be on a disk that all of them can see.
"""

import itertools
import os
import sys
import threading
import zlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from daad_jax.errors import ConfigError, UserError
from daad_jax.runtime import sharding, signals, watch

_SHUTDOWN_SECONDS = 7 * 24 * 3600  # The others wait at the end while the first one reports.
_LEAVE_SECONDS = 30  # A process that failed waits this long for the others to stop as well.
_apart: list[bool] = []  # of `join`
_calls = itertools.count()  # of `in_first`, the same in every process


class FirstProcessError(UserError):
    """Raised in the other processes when the first process has stopped."""

    def __init__(self, exit_code: int) -> None:
        """Takes the exit code of the first process."""
        super().__init__("the first process has stopped; see its own error message")
        self.exit_code = exit_code


def join(text: str | None, *, apart: bool = False) -> None:
    """Connects to the other processes. Call it before anything else uses JAX; None joins none.

    Processes that work `apart` until `meet` may each be stopped by a signal.

    The text is ``HOST:PORT,COUNT,INDEX``: the address of the first process, the number of processes
    and the index of this process, from 0. It is ``auto`` if JAX can find these itself, as under
    Slurm. Raises ConfigError if the text cannot be read or a process cannot be reached.
    """
    if not text:
        return
    # JAX's own preemption service would replace our SIGTERM handler.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        if text == "auto":
            jax.distributed.initialize(shutdown_timeout_seconds=_SHUTDOWN_SECONDS)
        else:
            address, count, index = text.rsplit(",", 2)
            jax.distributed.initialize(
                address, int(count), int(index), shutdown_timeout_seconds=_SHUTDOWN_SECONDS
            )
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"--distributed: cannot join {text!r} ({reason}); give HOST:PORT,COUNT,INDEX or auto"
        ) from error
    _apart.append(apart)
    if jax.process_count() > 1:
        if not apart:
            signals.hold()  # one process must not stop while the others wait for it
        watch.start()


def leave(code: int) -> None:
    """Disconnects from the other processes after a failure.

    Disconnecting waits for all of them, and they may be waiting for this process's part of a
    step. If they do not disconnect within 30 seconds, this process exits with `code`.
    """
    if not jax.distributed.is_initialized():
        return
    thread = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    thread.start()
    thread.join(_LEAVE_SECONDS)
    if thread.is_alive():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def leave_apart(code: int) -> None:
    """Disconnects after a signal to a process that works apart: the others do not stop."""
    if any(_apart):
        leave(code)


def is_first() -> bool:
    """Returns whether this is the first process, or the only one."""
    return jax.process_index() == 0


def index() -> int:
    """Returns the index of this process, from 0."""
    return jax.process_index()


def is_own(name: str) -> bool:
    """Returns whether a piece of work belongs to this process, by its name."""
    return zlib.crc32(os.fsencode(name)) % jax.process_count() == jax.process_index()


def are_several() -> bool:
    """Returns whether several processes are connected."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def in_first(work: Callable[[], object]) -> None:
    """Runs `work` in the first process; the others wait until it has returned, however long.

    Every process must call it. If `work` raises an exception, the others raise FirstProcessError.
    """
    failure: Exception | None = None
    if is_first():
        try:
            work()
        except Exception as error:
            failure = error
    if jax.process_count() > 1:
        name = f"first/{next(_calls)}"
        if is_first():
            code = 0 if failure is None else getattr(failure, "exit_code", 1)
            watch.store().key_value_set(f"daad_jax/{name}/code", str(code))
        meet(name)
        code = int(watch.store().blocking_key_value_get(f"daad_jax/{name}/code", 1000))
        if code and failure is None:
            raise FirstProcessError(code)
    if failure is not None:
        raise failure


def meet(name: str) -> None:
    """Waits until every process has called it with this name, however long that takes."""
    if jax.process_count() > 1:
        watch.store().wait_at_barrier(f"daad_jax/{name}", 1000 * _SHUTDOWN_SECONDS)


def all_processes(flag: bool) -> bool:
    """Returns the logical AND of a flag over all processes. Every process must call it."""
    if jax.process_count() == 1:
        return flag
    return bool(np.all(multihost_utils.process_allgather(np.bool_(flag))))


def check_signals() -> None:
    """Raises Interrupted in all processes if a signal asks one of them to stop.

    Every process must call it, at a point where nothing is lost.
    """
    if are_several() and not all_processes(not signals.requested()):
        signals.release()
    signals.check()


class Stop:
    """Tells every process, after the same step, that a signal to one of them asks for a stop.

    Every process calls it after each step. With several processes the answer is one step late: it
    is the result of the previous call, so that no step waits for communication.
    """

    def __init__(self, mesh: jax.sharding.Mesh) -> None:
        """Takes the mesh of the training devices."""
        self._mesh = mesh
        self._pending: jax.Array | None = None
        self._any = jax.jit(jnp.any, out_shardings=sharding.replicated(mesh))

    def __call__(self) -> bool:
        """Returns whether to stop. After True, `signals.check` raises in every process."""
        if jax.process_count() == 1:
            return signals.requested()
        own, size = signals.requested(), self._mesh.size
        flags = sharding.place_batch((size,), lambda rows: np.full(size, own)[rows], self._mesh)
        previous, self._pending = self._pending, self._any(flags)
        if previous is None or not bool(previous):
            return False
        signals.release()
        return True
