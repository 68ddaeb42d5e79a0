"""The errors of this package, and the root of all of them. What a person can cause ends as one line and an exit code.

    StopdownError             2   whatever else a person can cause
      InputError              2   a recipe, an option or a folder cannot be used
      SceneError              2   a family could not meet its rules

Those of the other packages are in `generator/errors.py` and `trainer/errors.py`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class StopdownError(Exception):
    """A failure with a one-line message that says what was received, what is allowed and what to do."""

    exit_code = 2


class InputError(StopdownError):
    """The person's input (recipe, option, folder) cannot be used as it is."""


class SceneError(StopdownError):
    """A scene family could not meet its rules."""


def closest(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the nearest known word, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""
