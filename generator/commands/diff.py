"""`stopdown diff`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from generator.commands.options import Json, counting
from generator.commands.version_options import DatasetFolder, Ref, print_json
from generator.console.terminal import Console
from generator.versions.history.history import History
from generator.versions.reading.diff import VersionDiff, diff


def command(
    dataset: DatasetFolder,
    before: Ref = "latest~1",
    after: Ref = "latest",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Show at most this many clips of each kind.")] = 20,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page instead: clips side by side, playing in step, offline.")
    ] = None,
    json: Json = False,
) -> None:
    """Compare two versions: clips added, removed and changed, labels field by field, recipes key by key."""
    history = History.open(dataset)
    found = diff(history, before, after)
    if html is not None:
        _write_page(history, found, html, limit, json)
        return
    if json:
        print_json(_tree(found))
        return
    console = Console()
    console.print(f"{found.before.short} to {found.after.short}: ", end="")
    counts = f"{len(found.added):,} added, {len(found.removed):,} removed, {len(found.changed):,} changed"
    console.print("no difference" if found.empty else counts)
    for change in found.recipe:
        console.print(f"  recipe {change.field}: {_word(change.before)} -> {_word(change.after)}", markup=False, soft_wrap=True)
    for sign, clip_ids in (("+", found.added), ("-", found.removed)):
        for clip_id in clip_ids[:limit]:
            console.print(f"{sign} {clip_id}", style="green" if sign == "+" else "red", markup=False)
        _more(console, len(clip_ids) - limit)
    for clip in found.changed[:limit]:
        console.print(f"~ {clip.clip_id}{' (other picture)' if clip.picture else ''}", style="yellow", markup=False)
        for change in clip.fields:
            console.print(f"    {change.field}: {_word(change.before)} -> {_word(change.after)}", markup=False, soft_wrap=True)
    _more(console, len(found.changed) - limit)


def _write_page(history: History, found: VersionDiff, html: Path, limit: int, json: bool) -> None:
    from generator.web.diff_page import diff_page  # the pictures' libraries are loaded only for a page

    with counting("diff", silent=json) as progress:
        report = diff_page(history, found, html, progress, limit=limit)
    if json:
        print_json({**_tree(found), "page": str(html), "shown": report.shown, "size_bytes": report.size_bytes})
        return
    print(f"{html}: {report.shown} of {report.clips:,} differing clips, {report.size_bytes / 1e6:.1f} MB")


def _more(console: Console, count: int) -> None:
    if count > 0:
        console.print(f"  and {count:,} more; --limit or --json shows them")


def _word(value: Any) -> str:
    if value is None:
        return "nothing"
    words = f"{value:.6g}" if isinstance(value, float) else str(value)
    return words[:12] if len(words) == 64 and " " not in words else words


def _tree(found: VersionDiff) -> dict[str, Any]:
    return {
        "before": found.before.id,
        "after": found.after.id,
        "added": found.added,
        "removed": found.removed,
        "changed": [asdict(change) for change in found.changed],
        "recipe": [asdict(change) for change in found.recipe],
    }
