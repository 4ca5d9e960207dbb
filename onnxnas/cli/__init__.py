"""The command line: flags in, exit codes out. All work is done by `onnxnas.pipeline`.

0 done, 1 a check did not hold, 2 bad input, 3 environment, 4 interrupted and resumable. An error is one
line on stderr; a traceback is shown only with --debug.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType

from onnxnas.errors import OnnxnasError

__all__ = ["main"]

_TYPER_INTERRUPTED = 130  # what typer makes of a KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status. `arguments` default to those of the process."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given:
        given = ["--help"]
    debug = "--debug" in given
    previous = signal.signal(signal.SIGTERM, _terminated)
    try:
        return _run(given, debug)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _run(arguments: list[str], debug: bool) -> int:
    from typer import Abort
    from typer.exceptions import TyperException

    from onnxnas.cli.app import app

    try:
        status = app(arguments, prog_name="onnxnas", standalone_mode=False)
        sys.stdout.flush()
        if status == _TYPER_INTERRUPTED:
            return _fail("interrupted", 4, debug)
        return status if isinstance(status, int) else 0
    except OnnxnasError as error:
        return _fail(str(error), error.exit_code, debug)
    except TyperException as error:
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        return _fail(f"{message} Try 'onnxnas --help'.", 2, debug)
    except (KeyboardInterrupt, Abort):
        return _fail("interrupted", 4, debug)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError:
        return _fail("out of memory; use a smaller --batch or model", 3, debug)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", 3, debug)
    except Exception as error:  # noqa: BLE001 - the last line of defence: no traceback reaches the user
        return _fail(f"unexpected {type(error).__name__}: {error}; add --debug for the traceback", 3, debug)


def _fail(message: str, status: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return status


def _terminated(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
