"""`stopdown merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from generator.commands.options import Json
from generator.commands.version_options import DatasetFolder, Message, Ref, print_json, version_json
from generator.console.terminal import Console
from generator.versions.history.history import History
from generator.versions.merge import merge


def command(
    dataset: DatasetFolder,
    other: Annotated[Path, typer.Argument(metavar="OTHER", help="The folder of the dataset to add.", show_default=False)],
    ref: Ref = "latest",
    message: Message = "",
    json: Json = False,
) -> None:
    """Commit the union of DATASET's latest version and version REF of OTHER; clips with the same id must be equal.

    The working folder is not changed; `stopdown restore DATASET latest` shows the union.
    """
    version = merge(History.open(dataset), History.open(other), ref, message)
    if json:
        print_json(version_json(version))
    else:
        Console().print(f"version {version.short}: {version.summary.clips:,} clips; restore it to see it in the folder")
