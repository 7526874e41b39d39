"""The commands: one module of this folder for each verb.

A new verb is one new module with a function ``run(argv)`` and one row of `VERBS`.
"""

import importlib
import io
import logging
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence

from daad_jax.errors import ConfigError, UserError, suggestion
from daad_jax.runtime import memory, processes, signals, watch

# Verb, which is also the name of its module, and what it does.
VERBS = {
    "check": "say whether a folder of images is fit to train on, and with what",
    "train": "train and evaluate one category, or each in turn",
    "evaluate": "evaluate a trained run again",
    "predict": "score new pictures, with decisions, maps and a page",
    "calibrate": "change the threshold of a trained run",
    "export": "write a trained run into one file that runs without this package",
    "serve": "answer over HTTP, and in the browser, with an exported file",
    "grid": "train and evaluate many configs",
    "plan": "say what training would cost on devices that are not here",
    "table": "print the results of a grid as a table",
    "reproduce": "make the paper's tables and figures, with its numbers beside ours",
}


def main(argv: Sequence[str]) -> int:
    """Runs the verb that `argv` begins with. Returns the exit code of `guarded`."""
    if argv and argv[0] in ("-h", "--help"):
        lines = (f"  {verb:<10}{sentence}" for verb, sentence in VERBS.items())
        print("daad-jax VERB [--help]", *lines, sep="\n")
        return 0

    def command() -> None:
        run = importlib.import_module(f"{__name__}.{_verb(argv)}").run
        signals.check()  # a signal may have arrived during the imports
        run(argv)

    return guarded(command)


def guarded(command: Callable[[], None]) -> int:
    """Runs a command with signals handled, and reports user errors as one line on stderr.

    Returns the exit code: 0 for success; 1 if a file cannot be written, memory runs out or some
    runs of a grid failed; 2 for bad input; 3 for a loss that is not finite; 75 if SIGTERM or SIGINT
    stopped the command and running it again resumes. A second signal ends the process with 128 plus
    the signal's number.
    """
    memory.keep_freed_memory()
    _print_anything()
    _print_own_errors_only()
    try:
        with signals.listen():
            command()
    except UserError as error:
        return _fail(str(error), error.exit_code)
    except signals.Interrupted as stop:
        message = f"interrupted by {stop}; re-run the same command to resume"
        print(message, file=sys.stderr, flush=True)
        processes.leave_apart(signals.EXIT_CODE)
        return signals.EXIT_CODE
    except MemoryError:
        return _fail("out of memory; lower data.image_size, data.tile or data.memory_limit_mb", 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", 1)
    except Exception as error:
        if "RESOURCE_EXHAUSTED" in str(error):  # a device's memory
            fields = "data.image_size, train.batch_size or score.batch_size"
            return _fail(f"a device is out of memory; lower {fields}", 1)
        if not processes.are_several():
            raise
        if isinstance(error, RuntimeError):  # an exchange fails when another process has died
            watch.wait()
        traceback.print_exc()
        processes.leave(1)
        return 1
    return 0


def _print_anything() -> None:
    """Lets every console, log and pipe take every character, and take each line at once."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace", line_buffering=True)


def _print_own_errors_only() -> None:
    """Hides what Orbax prints in its threads when a save fails, up to the end of the process.

    It would be mixed with this package's line, which gives the same reason.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    sys.unraisablehook = _show_unraisable


def _show_unraisable(raised: "sys.UnraisableHookArgs") -> None:
    if str(raised.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(raised)


def _verb(argv: Sequence[str]) -> str:
    if not argv:
        described = ", ".join(f"{verb} ({sentence})" for verb, sentence in VERBS.items())
        raise ConfigError(f"daad_jax: no verb given; give one of {described}")
    if argv[0] not in VERBS:
        raise ConfigError(f"{argv[0]}: no such verb; {suggestion(argv[0], VERBS)}")
    return argv[0]


def _fail(message: str, code: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    processes.leave(code)
    return code
