"""Errors as Blender shows them: the one line of the command line, in the operator's own report."""

from __future__ import annotations

from collections.abc import Callable, Set
from functools import wraps
from typing import Any

Execute = Callable[[Any, Any], Set[str]]


def reporting(execute: Execute) -> Execute:
    """Let an operator's `execute` or `invoke` report a StopdownError, or a package that is missing, and cancel."""

    @wraps(execute)
    def wrapped(self: Any, context: Any) -> Set[str]:
        try:
            from scenes.errors import StopdownError
        except ModuleNotFoundError as error:
            self.report({"ERROR"}, missing(error))
            return {"CANCELLED"}
        try:
            return execute(self, context)
        except StopdownError as error:
            self.report({"ERROR"}, str(error))
        except ModuleNotFoundError as error:
            self.report({"ERROR"}, missing(error))
        return {"CANCELLED"}

    return wrapped


def missing(error: ModuleNotFoundError) -> str:
    """Return what to do about a package that this Blender lacks."""
    package = (error.name or "").partition(".")[0]
    return (
        f"Python package '{package}' is not in this Blender; install the extension's zip for your platform and Blender, "
        "which holds it (`make extension`)"
    )
