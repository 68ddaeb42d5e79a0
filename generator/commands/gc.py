"""`stopdown gc`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from generator.commands.options import Json
from generator.commands.version_options import DatasetFolder, print_json
from generator.console.terminal import Console
from generator.versions.gc import GRACE_S, gc
from generator.versions.history.history import History


def command(
    dataset: DatasetFolder,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be removed.")] = False,
    uncommitted: Annotated[
        bool, typer.Option("--uncommitted", help="Also remove finished clips that no version and no label names.")
    ] = False,
    grace: Annotated[float, typer.Option("--grace", min=0, help="Keep files younger than this, in seconds.")] = GRACE_S,
    json: Json = False,
) -> None:
    """Remove stored objects that nothing uses. Objects of versions, tags, finished clips and running builds are kept."""
    report = gc(History.open(dataset), grace_s=grace, uncommitted=uncommitted, dry_run=dry_run)
    if json:
        print_json(asdict(report))
        return
    words = "would remove" if dry_run else "removed"
    young = f"; {report.kept_young} spared, being young" if report.kept_young else ""
    Console().print(
        f"{words} {report.objects} objects, {report.records} records, {report.versions} unfinished versions and "
        f"{report.temporaries} temporary files, {report.size_bytes / 1e6:.1f} MB{young}"
    )
