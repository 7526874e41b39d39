"""Several processes that train one run together, over `jax.distributed`.

Each computes its share of every batch. The first one alone writes into the workdir and evaluates;
all read it, so that it has to lie where every process sees it.
"""

import os
import sys
import threading
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from daad_jax import interruption, sharding
from daad_jax.errors import ConfigError, UserError

_WAIT_SECONDS = 7 * 24 * 3600  # the others wait at the end while the first one evaluates
_LEAVE_SECONDS = 30  # one that failed waits for the others to fail with it


class FirstProcessError(UserError):
    """The first process has stopped; its own message says why."""

    def __init__(self, exit_code: int) -> None:
        """Takes the first process's exit code."""
        super().__init__("the first process has stopped; its own message says why")
        self.exit_code = exit_code


def join(text: str) -> None:
    """Joins the other processes, before anything else is asked of JAX.

    Args:
        text: ``HOST:PORT,COUNT,INDEX``, the first process's address, how many there are and which
            this one is, from 0; or ``auto`` where JAX finds that out itself, as under Slurm.

    Raises:
        ConfigError: if that cannot be read, or the others cannot be reached.
    """
    # JAX's own preemption service would take SIGTERM from `interruption`.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        if text == "auto":
            jax.distributed.initialize(shutdown_timeout_seconds=_WAIT_SECONDS)
        else:
            address, count, index = text.rsplit(",", 2)
            jax.distributed.initialize(
                address, int(count), int(index), shutdown_timeout_seconds=_WAIT_SECONDS
            )
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"--distributed: {text!r} cannot be joined ({reason}); give HOST:PORT,COUNT,INDEX or "
            "auto"
        ) from error
    if jax.process_count() > 1:
        interruption.hold()


def leave(code: int) -> None:
    """Parts from the others after a failure, or ends this process where they do not part as well.

    At its end a process waits for all others, which may be waiting for its share of a step.

    Args:
        code: the exit code then.
    """
    if not jax.distributed.is_initialized():
        return
    parting = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    parting.start()
    parting.join(_LEAVE_SECONDS)
    if parting.is_alive():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def is_first() -> bool:
    """Whether this process is the first, or the only one."""
    return jax.process_index() == 0


def in_first(work: Callable[[], object], meanwhile: Callable[[], object] | None = None) -> None:
    """Runs a function in the first process while the others wait.

    Args:
        work: the function.
        meanwhile: what the others do first.

    Raises:
        FirstProcessError: in the others, if it raised something in the first.
    """
    failure: Exception | None = None
    if is_first():
        try:
            work()
        except Exception as error:
            failure = error
    elif meanwhile is not None:
        meanwhile()
    if jax.process_count() > 1:
        code = 0 if failure is None else getattr(failure, "exit_code", 1)
        code = int(multihost_utils.broadcast_one_to_all(np.int32(code)))
        if code and failure is None:
            raise FirstProcessError(code)
    if failure is not None:
        raise failure


def everywhere(flag: bool) -> bool:
    """Whether a flag is set in all processes; each of them has to ask."""
    if jax.process_count() == 1:
        return flag
    return bool(np.all(multihost_utils.process_allgather(np.bool_(flag))))


class Stop:
    """Whether a signal asks the work to stop: called after each step by every process.

    Several processes all get the same answer after the same step. It is that of the call before,
    which the devices have meanwhile: so no step waits for it.
    """

    def __init__(self, mesh: jax.sharding.Mesh) -> None:
        """Takes the devices that train."""
        self._mesh = mesh
        self._pending: jax.Array | None = None
        self._any = jax.jit(jnp.any, out_shardings=sharding.replicated(mesh))

    def __call__(self) -> bool:
        """Asks; if it is so, `interruption.check` raises in every process from now on."""
        if jax.process_count() == 1:
            return interruption.requested()
        own, size = interruption.requested(), self._mesh.size
        flags = sharding.place_batch((size,), lambda rows: np.full(size, own)[rows], self._mesh)
        before, self._pending = self._pending, self._any(flags)
        if before is None or not bool(before):
            return False
        interruption.release()
        return True
