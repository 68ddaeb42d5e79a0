"""`stopdown runs`."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from generator.commands.options import Json
from generator.console.terminal import Console
from scenes.errors import InputError, closest

if TYPE_CHECKING:
    from trainer.runs.side_by_side import RunSummary


def command(
    name: Annotated[str | None, typer.Argument(help="Only runs of this recipe.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of all runs; runs if not given.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Show every setting, not only those that differ.")] = False,
    json: Json = False,
) -> None:
    """List runs side by side: their results, and the settings in which they differ, highlighted."""
    from trainer.runs.run_folder import run_folders
    from trainer.runs.side_by_side import differing, summarise

    if out is not None and not out.is_dir():
        raise InputError(f"--out {out} is no folder; give the one that `stopdown run` wrote to")
    out = out if out is not None else Path("runs")
    there = sorted(path.name for path in out.iterdir() if path.is_dir()) if out.is_dir() else []
    if name is not None and name not in there:
        others = f"it has {', '.join(there)}" if there else "start one with `stopdown run RECIPE`"
        raise InputError(f"{out} has no runs of '{name}'{closest(name, there)}; {others}")
    runs = [summarise(folder) for folder in run_folders(out, name)]
    if json:
        print(json_module.dumps([asdict(run) for run in runs], default=str))
        return
    console = Console(highlight=False)
    if not runs:
        console.print(f"no runs in {out / name if name else out}; start one with `stopdown run RECIPE`", markup=False)
        return
    differ = differing(runs)
    shown = sorted({key for run in runs for key in run.settings}) if everything else differ
    console.print(_table(runs, shown, set(differ)))


def _table(runs: list[RunSummary], settings: list[str], differ: set[str]) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("")
    for run in runs:
        table.add_column(run.name, overflow="fold")
    table.add_row("last stage", *[run.stage for run in runs])
    table.add_row("work", *[f"{run.wall_s / 60:.1f} min" for run in runs])
    for key in settings:
        style = "yellow" if key in differ and len(runs) > 1 else ""
        table.add_row(Text(key, style=style), *[Text(_words(run.settings.get(key)), style=style) for run in runs])
    for key in dict.fromkeys(key for run in runs for key in run.results):
        table.add_row(Text(key, style="bold"), *[_words(run.results.get(key)) for run in runs])
    return table


def _words(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
