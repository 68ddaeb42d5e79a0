"""Starts Stopdown in processes of their own, which never import Python files from the current folder."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import MutableMapping
from pathlib import Path


def stopdown_command(*words: str) -> list[str]:
    """Return the command line of `stopdown WORDS` by this interpreter; -P keeps the current folder off its import path."""
    return [sys.executable, "-P", "-m", "stopdown", *words]


def guard_children(environment: MutableMapping[str, str] = os.environ) -> None:
    """Keep the current folder off the import path of every Python that this process will start.

    multiprocessing, torch's compile workers and Ray start Python with `-c` or `-m`, which would import a `random.py` that
    lies beside a recipe. A checkout that is not installed is found by PYTHONPATH instead.
    """
    environment["PYTHONSAFEPATH"] = "1"
    packages = str(Path(__file__).resolve().parents[2])
    if packages not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
        if packages not in paths:
            environment["PYTHONPATH"] = os.pathsep.join([packages, *paths])
