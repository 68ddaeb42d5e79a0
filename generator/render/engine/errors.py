"""What goes wrong while rendering."""

from __future__ import annotations

from scenes.errors import StopdownError


class RenderError(StopdownError):
    """Blender printed or raised an error; the message is Blender's, on one line."""

    exit_code = 1
