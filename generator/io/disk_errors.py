"""What the disk refuses becomes one line that says what to do; nothing else about an error is hidden."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from generator.errors import DiskError
from generator.io.atomic import FULL, NOT_WRITABLE


class _InFolder(Protocol):
    path: Path


H = TypeVar("H", bound=_InFolder)
P = ParamSpec("P")
R = TypeVar("R")


def reported(function: Callable[Concatenate[H, P], R]) -> Callable[Concatenate[H, P], R]:
    """Turn a full or refusing disk into a DiskError; the function takes the history (or its method's self) first.

    What it wraps raises DiskError.
    """

    @functools.wraps(function)
    def wrapper(history: H, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(history, *args, **kwargs)
        except OSError as error:
            where = error.filename or history.path
            if error.errno in FULL:
                raise DiskError(f"no space left at {where}; free some and run the same command again") from error
            if error.errno in NOT_WRITABLE:
                raise DiskError(f"{where} cannot be written to ({error.strerror}); change its permissions") from error
            raise

    return wrapper
