"""`stopdown pull`."""

from __future__ import annotations

from typing import Annotated

import typer

from generator.commands.options import Json, counting
from generator.commands.remote_options import Anonymous, Endpoint, NoRestore, Region, RemotePlace, print_report, remote_at
from generator.commands.version_options import DatasetFolder
from generator.versions.history.history import History
from generator.versions.sync.pull import pull


def command(
    dataset: DatasetFolder,
    remote: RemotePlace,
    force: Annotated[
        bool, typer.Option("--force", help="Move the head and tags even if they lose versions, and lose uncommitted work.")
    ] = False,
    no_restore: NoRestore = False,
    endpoint: Endpoint = None,
    region: Region = None,
    anonymous: Anonymous = False,
    json: Json = False,
) -> None:
    """Fetch a remote's history, move the head and tags forward to the remote's, and show the latest version in the folder.

    Every byte is verified by its sha256. Refuses if this history has versions that the remote does not have, or if the folder
    has uncommitted work, unless --force is given. After an interruption, run it again to resume.
    """
    history, there = History.open(dataset), remote_at(remote, endpoint, region, anonymous)
    with counting("pulling", silent=json) as progress:
        report = pull(history, there, force=force, show=not no_restore, progress=progress)
    print_report(report, f"pulled from {there.name}", json=json)
