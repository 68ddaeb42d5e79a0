"""The end of every command: whatever went wrong that is no fault of the program becomes one line and an exit code.

0 done, 1 not as it should be (the command says what), 2 an input, a folder or a disk that cannot be used, 130 interrupted,
141 the reader of the output went away. Only a fault of the program ends in a traceback.
"""

from __future__ import annotations

import errno
import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, ParamSpec, TypeVar

import typer
from pydantic import ValidationError

from generator.console.streams import discard_output, own_streams
from generator.errors import InterruptedByPersonError, OutputError, ReaderGoneError
from generator.io.atomic import FULL, NOT_WRITABLE
from scenes.errors import InputError, StopdownError

P = ParamSpec("P")
R = TypeVar("R")

_UsageError: Any = typer.BadParameter.__mro__[1]  # of the click inside typer, which has no public name
_LONGEST_PATH = 200


def command_line(call: Callable[[], object]) -> NoReturn:
    """Run a program and end the process; its own exits stay what they are."""
    code = _ended(own_streams) or _ended(call)
    unwritten = _ended(lambda: sys.stdout.flush())  # what it printed is in a buffer until now
    sys.exit(code or unwritten)


def run_parsed(command: Any, args: Sequence[str] | None, prog_name: str) -> None:
    """Run a command of typer's; an option that it does not know, or one that is missing, is one line as any other mistake.

    `args` are the words behind the command's name, those of the process if None. Raises InputError, SystemExit.
    """
    try:
        code = command.main(args=args, prog_name=prog_name, standalone_mode=False)
    except typer.Abort:
        raise InterruptedByPersonError("interrupted") from None
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            raise SystemExit(_shown_help(error)) from None
        words = " ".join(error.format_message().split()).removesuffix(".")
        where = error.ctx.command_path if error.ctx is not None else prog_name
        raise InputError(f"{words[:1].lower()}{words[1:]}; try `{where} --help`") from None
    if isinstance(code, int) and code:
        raise SystemExit(code)


def told(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a command so that an outer part of the program, which would end it in other words, sees StopdownError only.

    It raises InterruptedByPersonError for Ctrl-C.
    """

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except KeyboardInterrupt:
            raise InterruptedByPersonError("interrupted; run the same command again to go on") from None
        except (OSError, UnicodeError, RecursionError, MemoryError) as error:
            raise _in_words(error) from error
        except ValidationError as error:
            if any(one["type"] != "string_unicode" for one in error.errors(include_input=False)):
                raise
            where = ".".join(map(str, error.errors(include_input=False)[0]["loc"]))
            raise InputError(f"{where or 'a text'} is not Unicode; write it in UTF-8") from error

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


def _shown_help(error: Any) -> int:
    """Print the help of a command that was called with nothing and has nothing to do then; return the exit code."""
    sys.stdout.write(f"{error.ctx.get_help()}\n")
    return 2


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
    if error.errno in FULL:
        return f"no space left{f' at {short}' if short else ''} ({reason}); free some and run the same command again"
    if error.errno in NOT_WRITABLE:
        return f"{short or 'a file'} cannot be opened or written to ({reason}); change its permissions, or give another place"
    if error.errno == errno.ENAMETOOLONG:
        return f"{short or 'a path'} is too long a path for the file system ({len(where)} characters); give a shorter one"
    return f"{short}: {reason}" if short else f"the system refused ({reason})"
