"""`stopdown log`."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from generator.commands.options import Json
from generator.commands.version_options import DatasetFolder, Ref, print_json, tags_by_version, version_json
from generator.console.terminal import Console
from generator.versions.history.history import History


def command(
    dataset: DatasetFolder,
    ref: Ref = "latest",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Show at most this many versions.")] = 1000,
    json: Json = False,
) -> None:
    """List the versions of a dataset from REF backwards, with tags and messages."""
    history = History.open(dataset)
    tags = tags_by_version(history.refs)
    versions = list(islice(history.log(ref), limit))
    if json:
        print_json([version_json(version, tags) for version in versions])
        return
    console = Console()
    if not versions:
        console.print(f"{dataset} has no version yet; `stopdown commit` makes the first")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("version", "time (UTC)", "clips", "tags", "message"):
        table.add_column(heading, justify="right" if heading == "clips" else "left", no_wrap=heading != "message")
    for version in versions:
        names = Text(", ".join(tags.get(version.id, [])), style="green")
        when = version.time.removesuffix("+00:00").replace("T", " ")
        row = (Text(version.short, style="yellow"), when, f"{version.summary.clips:,}", names, Text(version.message))
        table.add_row(*row)
    console.print(table)
