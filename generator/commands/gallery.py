"""`stopdown gallery`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from generator.commands.options import DatasetFolder, counting
from generator.versions.working.working_folder import WorkingFolder
from generator.web.contact_sheet import contact_sheet
from generator.web.gallery import gallery


def command(
    dataset: DatasetFolder,
    out: Annotated[Path | None, typer.Option(help="The HTML file; DATASET/gallery.html if not given.")] = None,
) -> None:
    """Write a self-contained HTML gallery of a dataset, and beside it a contact sheet (.png)."""
    opened = WorkingFolder.open(dataset)
    page = out if out is not None else dataset / "gallery.html"
    with counting("gallery") as progress:
        report = gallery(opened, page, progress)
    sheet = page.with_name("contact-sheet.png")
    contact_sheet(opened, sheet)
    links = "" if report.embedded else "; its videos are links to clips/, for they are too large to be inside"
    print(f"{page}: {report.clips} clips, {report.size_bytes / 1e6:.1f} MB{links}")
    print(f"contact sheet: {sheet}")
