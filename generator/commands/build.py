"""`stopdown build`."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path
from typing import Annotated

import typer

from generator.building.local import BuildReport, build
from generator.commands.build_farm import FarmRequest, run
from generator.commands.options import Json, Overrides, RecipeFile
from generator.commands.remote_options import Endpoint, Region
from generator.console.progress import make_progress
from generator.processes.processors import allowed_processors
from generator.recipe.load import load_recipe
from generator.recipe.plan import make_plan
from generator.recipe.schema import Recipe
from generator.remotes.base import RemoteOptions
from scenes.errors import InputError


def command(
    recipe: RecipeFile,
    out: Annotated[
        str | None,
        typer.Option(metavar="FOLDER|s3://BUCKET/PREFIX", help="The dataset's place; datasets/NAME if not given."),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Render processes; one per core if not given.")] = None,
    threads: Annotated[int, typer.Option(help="Threads of each render process.")] = 1,
    message: Annotated[str, typer.Option("--message", "-m", help="A message that describes the version.")] = "",
    commit: Annotated[bool, typer.Option("--commit/--no-commit", help="Make the finished dataset a version.")] = True,
    shard: Annotated[str | None, typer.Option(metavar="I/N", help="Render only shard I of N, such as 3/64.")] = None,
    finish: Annotated[bool, typer.Option("--finish", help="Check that all clips of all shards are there, and commit.")] = False,
    shards: Annotated[int | None, typer.Option(metavar="N", help="With --finish: the number of shards.")] = None,
    engine: Annotated[
        str, typer.Option(metavar="local|ray", help="Where to render: on this machine, or on a Ray cluster.")
    ] = "local",
    address: Annotated[str | None, typer.Option(help="With --engine ray: HOST:PORT of the cluster's head.")] = None,
    time_limit: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Longest time of a render; from its estimate if not given.")
    ] = None,
    scratch: Annotated[
        Path | None, typer.Option(help="Local folder for clips that are not uploaded yet; a temporary one if not given.")
    ] = None,
    endpoint: Endpoint = None,
    region: Region = None,
    overrides: Overrides = None,
    json: Json = False,
) -> None:
    """Render, encode and measure a recipe's clips into a dataset, and commit it as a version.

    After an interruption, run it again to resume. If the recipe of a dataset was changed, only new and changed clips are
    rendered. On many machines: --shard 1/64 to --shard 64/64 in any order, then --finish (`stopdown slurm` writes such
    jobs), or --engine ray.
    """
    loaded = load_recipe(recipe, overrides or ())
    request = FarmRequest(
        out=out if out is not None else str(Path("datasets") / loaded.name),
        recipe_folder=recipe.parent,
        remote=RemoteOptions(endpoint=endpoint, region=region),
        shard=shard,
        finish=finish,
        shards=shards,
        engine=engine,
        address=address,
        workers=workers,
        threads=threads,
        time_limit_s=time_limit,
        scratch=scratch,
        message=(message or f"build of {loaded.name}") if commit else None,
        json=json,
    )
    request.check()
    if request.is_plain:
        _build_here(loaded, request)
    else:
        run(loaded, request)


def _build_here(recipe: Recipe, request: FarmRequest) -> None:
    if request.remote != RemoteOptions():
        raise InputError(f"{request.out} is a folder, and --endpoint and --region mean nothing there; leave them out")
    report = build(
        make_plan(recipe),
        Path(request.out),
        workers=request.workers if request.workers is not None else allowed_processors(),
        threads=request.threads,
        progress=make_progress(sys.stdout if request.json else sys.stderr, json_lines=request.json),
        message=request.message,
        recipe_folder=request.recipe_folder,
    )
    if request.json:
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
        "curation": report.curation,
    }


def _words(report: BuildReport) -> str:
    reused = f", {report.reused} were there" if report.reused else ""
    words = f"{report.path}: {report.rendered} clips rendered{reused}, in {report.wall_s:.0f} s ({report.cpu_s:.0f} CPU s)"
    if report.curation:
        words += f"; kept as it was curated: {report.curation}"
    if report.complete:
        words += f"; version {report.version[:12]}" if report.version else "; not committed"
        return f"{words}\nnext: stopdown verify {report.path}; stopdown gallery {report.path}"
    return f"{words}; {len(report.failed)} of {report.clips} failed, the rest is kept: run the same command to try them again"
