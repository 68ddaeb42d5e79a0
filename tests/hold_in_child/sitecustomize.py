"""On PYTHONPATH, makes `stopdown build --json` hold where STOPDOWN_TEST_HOLD says (see tests/held.py)."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

if "STOPDOWN_TEST_HOLD" in os.environ and "build" in sys.orig_argv:
    import held

    from generator.console import progress

    clips, _, file = os.environ["STOPDOWN_TEST_HOLD"].partition(":")
    progress.JsonProgress = functools.partial(held.HeldProgress, clips=int(clips), file=Path(file))  # type: ignore[misc,assignment]
