"""`stopdown build` beyond one machine and one folder: shards, their end, storage, Ray."""

from __future__ import annotations

import json as json_module
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import typer

from generator.building.local import blender_version
from generator.console.progress import make_progress
from generator.farm.finish import FinishReport, finish_target
from generator.farm.shard_build import ShardOptions, ShardReport, build_shard
from generator.farm.shards import Shard, parse_shard
from generator.farm.target import Target, claimed_target, open_target
from generator.processes.processors import allowed_processors
from generator.recipe.schema import Recipe
from generator.remotes.base import RemoteOptions
from generator.versions.commit import check_message
from scenes.errors import InputError


@dataclass(frozen=True, kw_only=True)
class FarmRequest:
    """What the options of `stopdown build` ask for; `out` is a folder or s3://BUCKET/PREFIX."""

    out: str
    recipe_folder: Path
    remote: RemoteOptions
    shard: str | None
    finish: bool
    shards: int | None
    engine: str
    address: str | None
    workers: int | None
    threads: int
    time_limit_s: float | None
    scratch: Path | None
    message: str | None
    json: bool

    @property
    def is_plain(self) -> bool:
        """Whether one machine builds in a folder, which needs no farm."""
        return not (self.shard or self.finish or self.engine != "local" or self.out.startswith("s3://"))

    def check(self) -> None:
        """Raise InputError for options that contradict each other, and for a message that no version can have."""
        if self.message is not None:
            check_message(self.message)
        if self.engine not in ("local", "ray"):
            raise InputError(f"--engine '{self.engine}' is none; give local or ray")
        if self.finish and self.shard is not None:
            raise InputError("--shard renders and --finish commits what shards rendered; give one of the two")
        if self.engine == "ray" and (self.finish or self.shard is not None):
            raise InputError("--engine ray cuts the plan itself and commits it; leave out --shard and --finish")
        if self.address is not None and self.engine != "ray":
            raise InputError(f"--address {self.address} means something with --engine ray only")
        if self.shards is not None and not self.finish:
            raise InputError("--shards says how many there were, to --finish; give one with --shard, as in --shard 3/64")
        if self.shards is not None and self.shards < 1:
            raise InputError(f"--shards {self.shards}: give 1 or more")
        if self.shard is not None:
            parse_shard(self.shard)
        if self.is_plain and (self.scratch is not None or self.time_limit_s is not None):
            raise InputError("--scratch and --time-limit are for --shard, --engine ray and s3://; leave them out")


def run(recipe: Recipe, request: FarmRequest) -> None:
    """Do what was asked for and print it; ends the command with exit code 1 where clips are missing or failed."""
    recipe = recipe.of_the_data()  # a store keeps no more of it, and is to know it again
    with _orderly_end():
        if request.finish:
            _end(claimed_target(request.out, recipe, options=_remote(request)), request, {})
        else:
            _render(recipe, request)


def _render(recipe: Recipe, request: FarmRequest) -> None:
    if request.engine == "ray":
        from generator.farm.ray.cluster import check_ray

        check_ray()  # before anything is written
    target = open_target(request.out, recipe, blender=blender_version(), options=_remote(request))
    if request.engine == "ray":
        _run_ray(target, request)
    else:
        shard = parse_shard(request.shard or "1/1")
        report = _run_shard(target, request, shard)
        if request.shard is None and report.complete:
            _end(target, request, _shard_summary(target, report))
            return
        _print(request, _shard_words(target, report), _shard_summary(target, report))
        _fail_for(report.failed)


def _run_shard(target: Target, request: FarmRequest, shard: Shard) -> ShardReport:
    options = ShardOptions(
        workers=request.workers if request.workers is not None else allowed_processors(),
        threads=request.threads,
        time_limit_s=request.time_limit_s,
        scratch=request.scratch,
    )
    progress = make_progress(sys.stdout if request.json else sys.stderr, json_lines=request.json)
    return build_shard(target, shard, options=options, progress=progress, recipe_folder=request.recipe_folder)


def _run_ray(target: Target, request: FarmRequest) -> None:
    from generator.farm.ray.engine import build_on_ray

    progress = make_progress(sys.stdout if request.json else sys.stderr, json_lines=request.json)
    report = build_on_ray(
        target,
        address=request.address,
        slots=request.workers,
        threads=request.threads,
        progress=progress,
        time_limit_s=request.time_limit_s,
        recipe_folder=request.recipe_folder,
    )
    summary = {
        "rendered": report.rendered,
        "failed": report.failed,
        "cpu_s": round(report.cpu_s, 2),
        "wall_s": round(report.wall_s, 2),
    }
    if report.failed:
        words = f"{target.where}: {report.rendered} clips rendered, {len(report.failed)} failed"
        _print(request, f"{words}; run the same command to try them again", {"path": target.where, **summary})
        _fail_for(report.failed)
    _end(target, request, summary)


def _end(target: Target, request: FarmRequest, summary: Mapping[str, object]) -> None:
    report = finish_target(target, message=request.message, shards=request.shards)
    if not report.complete:
        _print(request, report.words(), {**summary, **_finish_summary(report)})
        raise typer.Exit(1)
    words = f"{target.where}: all {report.clips} clips are there"
    words += f"; version {report.version[:12]}" if report.version else "; not committed"
    if "rendered" in summary:
        words = f"{target.where}: {summary['rendered']} clips rendered in {summary['wall_s']:.0f} s\n{words}"
    _print(request, f"{words}\nnext: {_next(target.where)}", {**summary, **_finish_summary(report)})


def _next(where: str) -> str:
    return f"stopdown clone {where} FOLDER" if where.startswith("s3://") else f"stopdown verify {where}"


def _remote(request: FarmRequest) -> RemoteOptions | None:
    return None if request.remote == RemoteOptions() else request.remote


def _shard_words(target: Target, report: ShardReport) -> str:
    words = (
        f"{target.where}: shard {report.shard} has {report.clips} clips: {report.rendered} rendered, {report.reused} were there"
    )
    words += f", in {report.wall_s:.0f} s ({report.cpu_s:.0f} CPU s)"
    if report.failed:
        return f"{words}; {len(report.failed)} failed, the rest is kept: run the same command to try them again"
    return f"{words}\nnext: `stopdown build --finish` when all shards are done"


def _shard_summary(target: Target, report: ShardReport) -> dict[str, object]:
    return {
        "path": target.where,
        "shard": str(report.shard),
        "clips": report.clips,
        "rendered": report.rendered,
        "reused": report.reused,
        "failed": report.failed,
        "cpu_s": round(report.cpu_s, 2),
        "wall_s": round(report.wall_s, 2),
    }


def _finish_summary(report: FinishReport) -> dict[str, object]:
    return {
        "path": report.where,
        "clips": report.clips,
        "lacking": report.missing_clips,
        "missing": list(report.missing),
        "shards": list(report.shards),
        "of": report.count,
        "set_aside": list(report.set_aside),
        "version": report.version,
    }


def _print(request: FarmRequest, words: str, summary: Mapping[str, object]) -> None:
    print(json_module.dumps({"event": "report", **summary}) if request.json else words)


def _fail_for(failed: Mapping[str, str]) -> None:
    for clip_id, message in failed.items():
        print(f"stopdown: clip {clip_id} failed: {message}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


@contextmanager
def _orderly_end() -> Iterator[None]:
    """Let SIGTERM, which batch systems send before they kill, end render processes and the heartbeat in order."""
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)
