"""Loads Blender into this process, with as many threads as it was given and no more."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path

from scenes.errors import InputError


def use_own_settings(folder: Path) -> None:
    """Let Blender, when it is loaded into this process, keep its user files in a folder that is not the person's.

    A factory reset removes the Python packages of the extensions that a person has installed, because it enables none of them
    (seen on bpy 5.0.1); here there are none to remove. Their settings and start-up files are left out, too. Its temporary
    files lie there as well, because a process that is ended does not remove them; who made the folder does.
    """
    os.environ["BLENDER_USER_RESOURCES"] = str(folder)
    tempfile.gettempdir()  # Python's own stays where it was
    scratch = folder / "temporary"
    scratch.mkdir(parents=True, exist_ok=True)
    os.environ["TMPDIR"] = str(scratch)


def start_blender(threads: int) -> None:
    """Import bpy once, its task pool bound to `threads`; later calls do nothing.

    Blender sizes its pool by the CPUs it may use while it loads. A pool larger than Cycles' thread count keeps its idle
    workers spinning, which doubled the CPU time of one-thread renders (bpy 5.0.1), so the process is confined to `threads`
    CPUs for the moment of the import (Linux only; elsewhere Cycles' own limit still holds). Raises InputError if bpy is
    not installed.
    """
    if "bpy" in sys.modules:
        return
    os.environ.pop("OCIO", None)  # a person's own colour configuration: labels hold in Blender's, which is everywhere the same
    if importlib.util.find_spec("bpy") is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise InputError(
            f"Blender's Python module 'bpy' is not installed for this Python {version}; it exists for Python 3.11 (5.0) and "
            "3.13 (5.2); use one of these and run: pip install 'stopdown[render]'"
        )
    if sys.platform != "linux":
        import bpy

        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(allowed)[:threads]))
    try:
        import bpy  # noqa: F401
    finally:
        os.sched_setaffinity(0, allowed)
