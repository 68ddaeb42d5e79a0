"""The Blender extension: author, preview and build datasets in Blender, and headless with `blender --command stopdown`.

Thin: what it does is done by `scenes` and `generator`. Nothing runs at import; `unregister` undoes `register` in reverse.
"""

from __future__ import annotations

from . import build_job, cli, custom_blend, datasets, draw, live, panel, properties, recipe_file, sweep

_PARTS = (properties, recipe_file, draw, live, sweep, build_job, datasets, custom_blend, panel, cli)


def register() -> None:
    """Register every class, property and command, each module its own."""
    for part in _PARTS:
        part.register()


def unregister() -> None:
    """Take away what `register` added, last first."""
    for part in reversed(_PARTS):
        part.unregister()
