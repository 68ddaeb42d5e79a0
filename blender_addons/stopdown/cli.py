"""`blender --background --command stopdown …`: the command line of Stopdown, with its output and exit codes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import bpy

from .child import child_command, child_environment
from .reports import missing

NAME = "stopdown"

_registered: list[Any] = []  # Blender's handle of the command, which unregistering needs


def run(words: Sequence[str]) -> int:
    """Run `stopdown WORDS` on this process's own input and output; return its exit code."""
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        environment = child_environment()
    except ModuleNotFoundError as error:
        print(f"stopdown: error: {missing(error)}", file=sys.stderr)
        return 2
    with subprocess.Popen(child_command(words), env=environment) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # the terminal tells the command too, which ends in its own way
                continue


def register() -> None:
    """Register the command."""
    _registered.append(bpy.utils.register_cli_command(NAME, run))


def unregister() -> None:
    """Remove the command."""
    bpy.utils.unregister_cli_command(_registered.pop())
