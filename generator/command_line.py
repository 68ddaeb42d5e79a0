"""The end of every command: whatever went wrong that is no fault of the program becomes one line and an exit code.

0 done, 1 not as it should be (the command says what), 2 an input, a folder or a disk that cannot be used, 130 interrupted,
141 the reader of the output went away. Only a fault of the program ends in a traceback.
"""

from __future__ import annotations

import errno
import functools
import os
import sys
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar

from generator.files import NOT_WRITABLE
from generator.streams import OutputError, discard_output, own_streams
from scenes.errors import StopdownError

P = ParamSpec("P")
R = TypeVar("R")

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LONGEST_PATH = 200


class InterruptedByPersonError(StopdownError):
    """Ctrl-C."""

    exit_code = 130


class ReaderGoneError(StopdownError):
    """The reader of a pipe has read enough, as in `stopdown log … | head`; nobody is told."""

    exit_code = 141


def command_line(call: Callable[[], object]) -> NoReturn:
    """Run a program and end the process; its own exits stay what they are."""
    code = _ended(own_streams) or _ended(call)
    unwritten = _ended(lambda: sys.stdout.flush())  # what it printed is in a buffer until now
    sys.exit(code or unwritten)


def told(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a command so that an outer part of the program, which would end it in other words, sees StopdownError only."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except KeyboardInterrupt:
            raise InterruptedByPersonError("interrupted; run the same command again to go on") from None
        except (OSError, UnicodeError, RecursionError, MemoryError) as error:
            raise _in_words(error) from error

    return wrapper


def _ended(call: Callable[[], object]) -> int:
    """Call, say in one line what went wrong, and return the exit code."""
    try:
        told(call)()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except StopdownError as error:
        if isinstance(error, OutputError | ReaderGoneError):
            discard_output()
        if not isinstance(error, ReaderGoneError):
            kind = "" if isinstance(error, InterruptedByPersonError) else "error: "
            words = str(error).replace("\n", "\\n")  # of a path, or of what was typed
            if sys.stderr is not None:  # it was closed, and Ctrl-C came before it could be given a place
                sys.stderr.write(f"stopdown: {kind}{words}\n")
        return error.exit_code
    return 0


def _in_words(error: Exception) -> StopdownError:
    if isinstance(error, BrokenPipeError):
        return ReaderGoneError("the reader of the output went away")
    if isinstance(error, OSError):
        return StopdownError(_disk_words(error))
    if isinstance(error, UnicodeError):
        return StopdownError(f"a name or text is not Unicode ({error}); rename it, or write it anew in UTF-8")
    if isinstance(error, RecursionError):
        return StopdownError("something in the input is nested too deeply to be read; make it flatter")
    return StopdownError("out of memory; close other programs, or ask for less at once")


def _disk_words(error: OSError) -> str:
    name = error.filename if error.filename is not None else error.filename2
    where = os.fsdecode(name) if isinstance(name, str | bytes) else ""
    short = where if len(where) <= _LONGEST_PATH else f"{where[:_LONGEST_PATH]}…"
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno in _FULL:
        return f"no space left{f' at {short}' if short else ''} ({reason}); free some and run the same command again"
    if error.errno in NOT_WRITABLE:
        return f"{short or 'a file'} cannot be opened or written to ({reason}); change its permissions, or give another place"
    if error.errno == errno.ENAMETOOLONG:
        return f"{short or 'a path'} is too long a path for the file system ({len(where)} characters); give a shorter one"
    return f"{short}: {reason}" if short else f"the system refused ({reason})"
