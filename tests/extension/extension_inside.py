"""What the extension's scenarios share: using its operators and its command inside Blender, and what it leaves there."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

ADDON = "bl_ext.user_default.stopdown"


def complaint(operator: Callable[..., Any], **words: Any) -> str:
    """Return the report of an operator that must be refused."""
    try:
        ended = operator("EXEC_DEFAULT", True, **words)
    except RuntimeError as error:
        return str(error).splitlines()[0].removeprefix("Error: ")
    raise AssertionError(f"the operator was not refused: {ended}")


def enabled() -> Any:
    """Enable the extension that is installed in the user folder and return its module."""
    import bpy

    assert bpy.ops.preferences.addon_enable(module=ADDON) == {"FINISHED"}
    return sys.modules[ADDON]


def session() -> Any:
    import bpy

    return bpy.context.window_manager.stopdown


def footprint() -> dict[str, Any]:
    """Return everything that an extension could leave behind in Blender."""
    import bpy

    bases = (bpy.types.Operator, bpy.types.Panel, bpy.types.PropertyGroup, bpy.types.UIList)
    classes = [kind.__name__ for base in bases for kind in base.__subclasses__() if kind.is_registered]
    handlers = [(name, getattr(bpy.app.handlers, name)) for name in dir(bpy.app.handlers)]
    owners = (bpy.types.Scene, bpy.types.WindowManager, bpy.types.Object, bpy.types.Camera, bpy.types.Preferences)
    return {
        "classes": sorted(name for name in classes if "stopdown" in name.lower()),
        "types": sorted(name for name in dir(bpy.types) if "stopdown" in name.lower()),
        "operators": sorted(dir(bpy.ops.stopdown)),
        "properties": [owner.__name__ for owner in owners if hasattr(owner, "stopdown")],
        "handlers": [f"{name} {len(entry)}" for name, entry in handlers if isinstance(entry, list)],
    }


@contextlib.contextmanager
def commands() -> Iterator[dict[str, Callable[[list[str]], int]]]:
    """Note the commands that are registered, and forget those that are unregistered; Blender does both as ever."""
    import bpy

    found: dict[str, Callable[[list[str]], int]] = {}
    handles: list[tuple[Any, str]] = []
    register, unregister = bpy.utils.register_cli_command, bpy.utils.unregister_cli_command

    def registering(name: str, entry: Callable[[list[str]], int]) -> Any:
        handle = register(name, entry)
        found[name] = entry
        handles.append((handle, name))
        return handle

    def unregistering(handle: Any) -> None:
        unregister(handle)
        (name,) = [name for known, name in handles if known is handle]
        del found[name]

    bpy.utils.register_cli_command, bpy.utils.unregister_cli_command = registering, unregistering
    try:
        yield found
    finally:
        bpy.utils.register_cli_command, bpy.utils.unregister_cli_command = register, unregister


def quietly(entry: Callable[[list[str]], int], words: list[str], log: str) -> int:
    """Call the command with this process's output in `LOG.out` and `LOG.err`, as a shell would redirect it."""
    saved = [os.dup(number) for number in (1, 2)]
    with open(f"{log}.out", "wb") as out, open(f"{log}.err", "wb") as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        try:
            return entry(words)
        finally:
            for number, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, number)
