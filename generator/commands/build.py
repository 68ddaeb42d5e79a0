"""`stopdown build`."""

from __future__ import annotations

import json as json_module
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from generator.build import BuildReport, build
from generator.commands.options import Json, Overrides, RecipeFile
from generator.plan import make_plan
from generator.progress import make_progress
from generator.recipe_io import load_recipe


def command(
    recipe: RecipeFile,
    out: Annotated[Path | None, typer.Option(help="The dataset's folder; datasets/NAME if not given.")] = None,
    workers: Annotated[int | None, typer.Option(help="Render processes; one per core if not given.")] = None,
    threads: Annotated[int, typer.Option(help="Threads of each render process.")] = 1,
    message: Annotated[str, typer.Option("--message", "-m", help="What the version is, in words.")] = "",
    commit: Annotated[bool, typer.Option("--commit/--no-commit", help="Make the finished dataset a version.")] = True,
    overrides: Overrides = None,
    json: Json = False,
) -> None:
    """Render, encode and measure a recipe's clips into a dataset, and commit it as a version.

    Run it again after an interruption to go on. A changed recipe of the same name renders only what it changes.
    """
    loaded = load_recipe(recipe, overrides or ())
    path = out if out is not None else Path("datasets") / loaded.name
    report = build(
        make_plan(loaded),
        path,
        workers=workers if workers is not None else os.cpu_count() or 1,
        threads=threads,
        progress=make_progress(sys.stdout if json else sys.stderr, json_lines=json),
        message=(message or f"build of {loaded.name}") if commit else None,
        recipe_folder=recipe.parent,
    )
    if json:
        print(json_module.dumps({"event": "report", **_summary(report)}))
    else:
        print(_words(report))
    for clip_id, message in report.failed.items():
        print(f"stopdown: clip {clip_id} failed: {message}", file=sys.stderr)
    if not report.complete:
        raise typer.Exit(1)


def _summary(report: BuildReport) -> dict[str, object]:
    return {
        "path": str(report.path),
        "clips": report.clips,
        "rendered": report.rendered,
        "reused": report.reused,
        "failed": report.failed,
        "cpu_s": round(report.cpu_s, 2),
        "wall_s": round(report.wall_s, 2),
        "version": report.version,
    }


def _words(report: BuildReport) -> str:
    reused = f", {report.reused} were there" if report.reused else ""
    words = f"{report.path}: {report.rendered} clips rendered{reused}, in {report.wall_s:.0f} s ({report.cpu_s:.0f} CPU s)"
    if report.complete:
        words += f"; version {report.version[:12]}" if report.version else "; not committed"
        return f"{words}\nnext: stopdown verify {report.path}; stopdown gallery {report.path}"
    return f"{words}; {len(report.failed)} of {report.clips} failed, the rest is kept: run the same command to try them again"
