"""The command `stopdown` in a process of its own: a process that has loaded Blender can start no render processes.

In Blender the process is Blender's own Python, which has no bpy; its render processes are Blenders in the background.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import bpy


def child_command(words: Sequence[str]) -> list[str]:
    """Return the command line of `stopdown WORDS`; -P keeps a `scenes` folder in the current one from being imported."""
    return [sys.executable, "-P", "-m", "stopdown", *words]


def child_environment() -> dict[str, str]:
    """Return the environment of the command: where Stopdown's packages lie, and which Blender renders.

    Raises ModuleNotFoundError where the packages are missing.
    """
    import generator
    from generator.render.executable import PROGRAM, VERSION

    packages = str(Path(generator.__path__[0]).parent)
    paths = [packages, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    for name in (PROGRAM, VERSION):
        environment.pop(name, None)
    if bpy.app.binary_path:  # empty where Blender is the bpy module: then any process of this Python can import it
        environment |= {PROGRAM: bpy.app.binary_path, VERSION: ".".join(map(str, bpy.app.version))}
    return environment
