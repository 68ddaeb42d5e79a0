"""`stopdown clone`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from generator.commands.options import Json, counting
from generator.commands.remote_options import Anonymous, Endpoint, NoRestore, Region, print_report, remote_at
from generator.versions.sync.pull import clone


def command(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A dataset's folder, or s3://BUCKET/PREFIX.", show_default=False)
    ],
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="A folder that does not exist yet, or is empty.")],
    no_restore: NoRestore = False,
    endpoint: Endpoint = None,
    region: Region = None,
    anonymous: Anonymous = False,
    json: Json = False,
) -> None:
    """Copy a remote's whole history into a new folder that shows the latest version. After an interruption, run it again."""
    there = remote_at(source, endpoint, region, anonymous)
    with counting("cloning", silent=json) as progress:
        report = clone(there, dest, show=not no_restore, progress=progress)
    print_report(report, f"cloned {there.name} into {dest}", json=json)
