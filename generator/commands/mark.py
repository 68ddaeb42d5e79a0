"""`stopdown mark`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from generator.building.local import blender_version
from generator.commands.options import Json
from generator.errors import RenderError, RenderProcessDied
from generator.recipe.blend_file import annotation_path, check_blend, read_notes
from generator.render.single import in_render_process, mark_file
from scenes.errors import InputError
from scenes.families.blend_annotation import check_caption


def command(
    file: Annotated[Path, typer.Argument(help="The .blend file.", show_default=False)],
    caption: Annotated[str, typer.Option(help="One sentence that describes the picture, without naming the effect.")],
    subject: Annotated[
        list[str] | None, typer.Option(help="The object that moves; needed for the shutter. Repeat it for several.")
    ] = None,
    focus: Annotated[str | None, typer.Option(help="The object in focus; the camera's own focus if not given.")] = None,
    patch: Annotated[
        str | None, typer.Option(help="A neutral grey or white object, on which the temperature is verified.")
    ] = None,
    scene: Annotated[str | None, typer.Option(help="The scene in the file; the active one if not given.")] = None,
    camera: Annotated[str | None, typer.Option(help="The camera; the scene's own if not given.")] = None,
    json: Json = False,
) -> None:
    """Annotate a custom .blend, so that the [scene] section of a recipe can name it. No script in it is run.

    Writes the annotation beside FILE: the camera, the focus, and the positions of the named objects over time. Refuses a file
    whose clips would not show what the file shows, with the reason: unbaked simulations, hidden objects, clipped pictures.
    """
    check_blend(file)
    try:
        check_caption(caption)
    except ValueError as error:
        raise InputError(str(error)) from None
    if not os.access(file.resolve().parent, os.W_OK):
        raise InputError(
            f"{file.resolve().parent} cannot be written to, and the annotation lies beside the file; copy the .blend elsewhere"
        )
    blender_version()
    named = {"subjects": tuple(subject or ()), "focus": focus, "patch": patch, "scene": scene, "camera": camera}
    try:
        in_render_process(mark_file, file.resolve(), caption, named)
    except RenderProcessDied:
        raise RenderError(
            f"Blender died while it read {file}; the file is damaged, or needs more memory than there is: open it in Blender "
            "and save it again"
        ) from None
    if json:
        print(annotation_path(file).read_text(encoding="utf-8"))
        return
    if os.environ.get("OCIO"):
        print("note: the variable OCIO is not used: rendering has Blender's own colour configuration")
    for note in read_notes(file):
        print(f"note: {note}")
    print(f"{annotation_path(file)} written")
