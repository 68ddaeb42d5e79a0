"""`stopdown mark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from generator.build import blender_version
from generator.commands.options import Json
from generator.own_scene import file_sha256, marks_path
from generator.render.single import in_render_process, mark_file


def command(
    file: Annotated[Path, typer.Argument(help="The .blend file.", show_default=False)],
    caption: Annotated[str, typer.Option(help="One sentence that says what is seen, without naming the effect.")],
    subject: Annotated[str | None, typer.Option(help="The object that moves; needed for the shutter.")] = None,
    focus: Annotated[str | None, typer.Option(help="The object in focus; the camera's own focus if not given.")] = None,
    patch: Annotated[str | None, typer.Option(help="A neutral grey or white object; proves the temperature.")] = None,
    scene: Annotated[str | None, typer.Option(help="The scene of the file; the one it was saved with if not given.")] = None,
    json: Json = False,
) -> None:
    """Mark a .blend file of yours as a scene for recipes, whose section `scene` names it; no script in it is run.

    Writes FILE's marks beside it: the camera, the focus, and where the named objects are in every frame.
    """
    file_sha256(file)
    blender_version()
    named = {"subject": subject, "focus": focus, "patch": patch, "scene": scene}
    in_render_process(mark_file, file.resolve(), caption, named)
    text = marks_path(file).read_text(encoding="utf-8")
    print(text if json else f"{marks_path(file)} written")
