"""`stopdown show`."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from generator.commands.options import Json
from generator.commands.version_options import DatasetFolder, Ref, print_json, tags_by_version, version_json
from generator.console.terminal import Console
from generator.versions.history.history import History
from generator.versions.history.version import Version


def command(dataset: DatasetFolder, ref: Ref = "latest", json: Json = False) -> None:
    """Show one version: its contents, how it was made, and its parent."""
    history = History.open(dataset)
    version = history.version(ref)
    tags = tags_by_version(history.refs)
    if json:
        print_json(version_json(version, tags))
        return
    console = Console()
    console.print(_facts(version, tags.get(version.id, [])))
    if version.summary.axes:
        console.print(_axes(version))


def _facts(version: Version, tags: list[str]) -> Table:
    summary, software = version.summary, version.software
    splits = ", ".join(f"{summary.splits.get(name, 0):,} {name}" for name in ("train", "validation", "test"))
    facts = {
        "version": version.id,
        "content": version.content,
        "tags": ", ".join(tags) or "none",
        "message": version.message,
        "time": version.time,
        "parents": ", ".join(parent[:12] for parent in version.parents) or "none, the first",
        "recipe": ", ".join(f"{recipe.get('name')} (seed {recipe.get('seed', 0)})" for recipe in version.recipes) or "none",
        "plan": ", ".join(plan[:12] for plan in version.plans) or "none",
        "clips": f"{summary.clips:,} of {summary.scenes:,} scenes, {summary.size_bytes / 1e6:,.1f} MB",
        "splits": splits,
        "software": f"stopdown {software.stopdown}, Python {software.python}",
        "Blender": ", ".join(software.blender) or "unknown",
        "encoder": "; ".join(software.encoder) or "unknown",
        "machine": version.machine,
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, words in facts.items():
        table.add_row(name, Text(words))
    return table


def _axes(version: Version) -> Table:
    table = Table(title="probes", title_justify="left")
    for heading in ("axis", "clips", "judged", "not read", "mean error", "worst error"):
        table.add_column(heading, justify="left" if heading == "axis" else "right")
    for axis, part in version.summary.axes.items():
        mean = "" if part.mean_error is None else f"{part.mean_error:.3g}"
        worst = f"{part.worst_error:.3g}" if part.judged else ""
        table.add_row(axis, f"{part.clips:,}", f"{part.judged:,}", f"{part.unread:,}", mean, worst)
    return table
