"""`stopdown tag`."""

from __future__ import annotations

from typing import Annotated

import typer

from generator.commands.options import Json
from generator.commands.version_options import DatasetFolder, Force, Ref, print_json
from generator.console.terminal import Console
from generator.versions.history.history import History
from scenes.errors import InputError


def command(
    dataset: DatasetFolder,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The tag; without it, all are listed.", show_default=False)
    ] = None,
    ref: Ref = "latest",
    delete: Annotated[bool, typer.Option("--delete", "-d", help="Remove the tag; its version stays.")] = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Name a version, move a name with --force, remove one with --delete, or list all."""
    history = History.open(dataset)
    console = Console()
    if name is None:
        if delete:
            raise InputError("--delete needs the name of a tag; `stopdown tag DATASET` lists them")
        tags = history.refs.tags()
        if json:
            print_json([tag.model_dump() for tag in tags.values()])
        for tag in () if json else tags.values():
            console.print(f"{tag.version[:12]}  {tag.name}", markup=False)
        return
    if delete:
        history.untag(name)
        if not json:
            console.print(f"removed tag {name}", markup=False)
        return
    version = history.tag(name, ref, move=force)
    if json:
        print_json({"name": name, "version": version.id})
    else:
        console.print(f"{name} is version {version.short}", markup=False)
