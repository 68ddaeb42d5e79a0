"""Which Blender renders: the bpy module of this Python or, where the environment names one, a Blender program.

The Blender extension sets the two variables: Blender's own Python, which runs the command, cannot import bpy. Each render
process is then a Blender in the background that runs multiprocessing's start-up code instead of a scene.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker, spawn
from pathlib import Path

PROGRAM = "STOPDOWN_BLENDER"  # the path of the Blender program
VERSION = "STOPDOWN_BLENDER_VERSION"  # its version, such as 5.0.1

# multiprocessing starts `PROGRAM [flags] -c CODE --multiprocessing-fork`; Blender takes the code by another name, and the code
# looks for that flag among Python's own arguments. A person's settings, add-ons and scripts are left out.
_SCRIPT = """#!/bin/sh
while [ "$1" != "-c" ]; do shift; done
BLENDER_USER_RESOURCES={user_files}
TMPDIR={user_files}/temporary
mkdir -p "$TMPDIR"
export BLENDER_USER_RESOURCES TMPDIR
unset OCIO
exec {program} --background --factory-startup --disable-autoexec --python-exit-code 1 \\
  --python-expr "import sys; sys.argv[1:] = ['--multiprocessing-fork']; $2"
"""


@contextmanager
def render_python(folder: Path) -> Iterator[None]:
    """Let processes that are spawned inside this context run in Blender; `folder` holds a small script until they have begun.

    Changes nothing where the environment names no Blender program: then this Python imports bpy.
    """
    program = os.environ.get(PROGRAM)
    if not program:
        yield
        return
    resource_tracker.ensure_running()  # it would be started by the same program, which must be plain Python
    script = folder / "blender.sh"
    text = _SCRIPT.format(program=shlex.quote(program), user_files=shlex.quote(str(folder.resolve() / "blender")))
    script.write_text(text, encoding="utf-8")
    script.chmod(0o700)
    before = os.fsdecode(spawn.get_executable())
    spawn.set_executable(str(script.resolve()))
    try:
        yield
    finally:
        spawn.set_executable(before)
