"""`stopdown push`."""

from __future__ import annotations

from typing import Annotated

import typer

from generator.commands.options import Json, counting
from generator.commands.remote_options import Anonymous, Endpoint, Region, RemotePlace, print_report, remote_at
from generator.commands.version_options import DatasetFolder
from generator.versions.history.history import History
from generator.versions.sync.push import push


def command(
    dataset: DatasetFolder,
    remote: RemotePlace,
    force: Annotated[bool, typer.Option("--force", help="Move the remote's head and tags even if they lose versions.")] = False,
    endpoint: Endpoint = None,
    region: Region = None,
    anonymous: Anonymous = False,
    json: Json = False,
) -> None:
    """Copy the versions of the head and the tags, with their history, to a remote; its head and tags become the same.

    Refuses if the remote has versions that are not in this history, unless --force is given. After an interruption, run it
    again to resume.
    """
    history, there = History.open(dataset), remote_at(remote, endpoint, region, anonymous)
    with counting("pushing", silent=json) as progress:
        report = push(history, there, force=force, progress=progress)
    print_report(report, f"pushed to {there.name}", json=json)
