"""`stopdown restore`."""

from __future__ import annotations

from dataclasses import asdict

from generator.commands.options import Json
from generator.commands.version_options import DatasetFolder, Force, Ref, print_json
from generator.console.terminal import Console
from generator.versions.history.history import History
from generator.versions.working.restore import restore


def command(dataset: DatasetFolder, ref: Ref, force: Force = False, json: Json = False) -> None:
    """Make the working folder equal to a version. Refuses to delete uncommitted work, unless --force is given.

    After an interruption, run it again to finish it.
    """
    report = restore(History.open(dataset), ref, force=force)
    if json:
        lost = [asdict(difference) for difference in report.lost]
        print_json({"version": report.version.id, "written": report.written, "removed": report.removed, "lost": lost})
        return
    console = Console()
    for difference in report.lost:
        console.print(f"lost: {difference.path} ({difference.detail})", markup=False, soft_wrap=True)
    console.print(f"version {report.version.short}: {report.written} files written, {report.removed} removed")
