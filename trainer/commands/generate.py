"""`stopdown generate`."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generator.commands.options import Json
from trainer.commands import generate_options as given
from trainer.config.requirements import require_training_stack

if TYPE_CHECKING:
    from diffusers import WanPipeline

    from trainer.adapters.saved import SavedAdapter
    from trainer.control.laws import AxisControl
    from trainer.generation.make_videos import GenerationReport
    from trainer.generation.plan import Point, Row
    from trainer.generation.sampler import Sampling
    from trainer.pipelines.extra_loras import ExtraLora


@given.with_axis_options
def command(
    adapter: given.Adapter,
    backbone: given.Backbone = None,
    out: given.Out = Path("generated"),
    prompt: given.PromptWords = None,
    prompts: given.PromptFile = None,
    negative: given.Negative = "",
    seed: given.Seed = 0,
    seeds: given.Seeds = 1,
    control: given.Control = None,
    zip: given.Zip = False,
    limit: given.Limit = None,
    mode: given.ModeWords = None,
    strength: given.Strength = 1.0,
    frames: given.Frames = None,
    width: given.Width = None,
    height: given.Height = None,
    fps: given.Fps = 16,
    steps: given.Steps = None,
    guidance: given.Guidance = None,
    control_guidance: given.ControlGuidance = None,
    text_tokens: given.TextTokens = None,
    scheduler: given.Scheduler = None,
    flow_shift: given.FlowShift = None,
    lora: given.Lora = None,
    dtype: given.Dtype = None,
    device: given.Device = None,
    offload: given.Offload = "none",
    quantize: given.Quantize = "none",
    batch: given.Batch = 1,
    allow_other_backbone: given.AllowOther = False,
    force: given.Force = False,
    dry_run: given.DryRun = False,
    json: Json = False,
    **axes: str | None,
) -> None:
    """Generate videos under camera control: one per prompt, seed, mode and value, and a labelled grid of all.

    Several values make a sweep, all from the same noise. After an interruption, run the same command again.
    Example: stopdown generate --adapter runs/a/adapter --prompt "a car passes" --shutter 1/400..1/16:7
    """
    swept = {**axes, "control": control or ()}
    drawn = {"seed": seed, "seeds": seeds, "negative": negative, "strength": strength}
    saved, rows = _plan(adapter, swept, limit, zip, {"words": prompt or (), "file": prompts}, mode or (), drawn)
    sampling: dict[str, float | None] = {
        "frames": frames,
        "width": width,
        "height": height,
        "steps": steps,
        "text_tokens": text_tokens,
    }
    sampling |= {"guidance": guidance, "control_guidance": control_guidance}
    loading: dict[str, Any] = {
        "backbone": backbone,
        "allow_other_backbone": allow_other_backbone,
        "dtype": dtype,
        "device": device,
    }
    loading |= {"offload": offload, "quantize": quantize, "scheduler": scheduler, "flow_shift": flow_shift}
    loading |= {"loras": _loras(lora or ())}
    rest = {"out": out, "fps": fps, "batch": batch, "force": force}
    if dry_run:
        _check(saved, rows, sampling, loading, rest)
        _show(rows, out, json)
        return
    print(_told(_run(saved, rows, sampling, loading, rest), json))


def _plan(
    adapter: Path,
    swept: Mapping[str, Any],
    limit: float | None,
    zipped: bool,
    prompts: Mapping[str, Any],
    modes: Sequence[str],
    drawn: Mapping[str, Any],
) -> tuple[SavedAdapter, tuple[Row, ...]]:
    """Return the opened adapter and the rows to make, checking all that needs no backbone."""
    require_training_stack()
    from trainer.commands.quiet import quiet_libraries

    quiet_libraries()
    from trainer.adapters.saved import SavedAdapter
    from trainer.control.modes import check_mode, default_mode
    from trainer.generation.plan import make_points, make_rows
    from trainer.generation.prompts import gather_prompts
    from trainer.generation.values import given_controls

    saved = SavedAdapter.open(adapter)
    card = saved.card
    axes = card.config.control.axes if card.config.control is not None else ()
    for mode in modes:
        check_mode(mode, card.config)
    written = {name: text for name, text in swept.items() if name != "control" and text is not None}
    controls = given_controls(axes, written, swept["control"], limit=limit, source=f"adapter {saved.folder}")
    points = make_points(controls, zipped=zipped)
    _note_extrapolation(axes, points)
    rows = make_rows(axes, gather_prompts(**prompts), points, modes or [default_mode(card.config)], **drawn)
    return saved, rows


def _loras(words: Sequence[str]) -> tuple[ExtraLora, ...]:
    from trainer.pipelines.extra_loras import parse_loras

    return parse_loras(words)


def _check(
    adapter: SavedAdapter,
    rows: tuple[Row, ...],
    sampling: Mapping[str, float | None],
    loading: Mapping[str, Any],
    rest: Mapping[str, Any],
) -> None:
    """Raise InputError for all that a generation would refuse and that no weight is needed to tell."""
    from trainer.adapters.folder import check_experts
    from trainer.backbones.load import experts
    from trainer.backbones.weightless import weightless_pipeline
    from trainer.control.attach import check_backbone
    from trainer.generation.load_pipeline import Loading, resolved
    from trainer.generation.make_videos import Request, check_guided, check_request, request_notes
    from trainer.pipelines.extra_loras import check_loras

    used = resolved(Loading(**loading), adapter.card)
    pipe = weightless_pipeline(str(used.backbone))
    check_experts(adapter, experts(pipe))
    for expert in experts(pipe).values():
        check_backbone(expert, adapter.card.config)
    check_loras(used.loras, pipe)
    request = Request(adapter=adapter, rows=rows, sampling=_asked(pipe, adapter, sampling), **rest)
    check_request(pipe, request)
    check_guided([adapter.card.config], request)
    for words in request_notes(pipe, request):
        print(f"stopdown: note: {words}", file=sys.stderr)


def _asked(pipe: WanPipeline, adapter: SavedAdapter, sampling: Mapping[str, Any]) -> Sampling:
    """Return the sampling: what was asked for, else the backbone's usual."""
    from dataclasses import replace

    from trainer.generation.load_pipeline import default_sampling

    told = {name: value for name, value in sampling.items() if value is not None}
    return replace(default_sampling(pipe, adapter.card), **told)


def _note_extrapolation(axes: Sequence[AxisControl], points: Sequence[Point]) -> None:
    """Say on the error stream which values lie outside the trained range: they are allowed, and not what was learned."""
    from trainer.control.curve import furthest

    for axis in axes:
        most = max((furthest(point.get(axis.name, 0.0)) for point in points), key=abs)
        if abs(most) > 1 + 1e-9:
            ends = " to ".join(axis.format(end) for end in (-1.0, 1.0))
            words = f"{axis.name} {axis.format(most)} is control {most:.3g}, beyond the trained range {ends}"
            print(f"stopdown: note: {words}", file=sys.stderr)


def _run(
    adapter: SavedAdapter,
    rows: tuple[Row, ...],
    sampling: Mapping[str, Any],
    loading: Mapping[str, Any],
    rest: Mapping[str, Any],
) -> GenerationReport:
    from trainer.generation.load_pipeline import Loading, load_controlled, resolved
    from trainer.generation.make_videos import Request, generate, request_notes
    from trainer.generation.video_progress import GenerateProgress
    from trainer.weights.full_disk import full_disk_in_words

    used = resolved(Loading(**loading), adapter.card)
    with GenerateProgress(sys.stderr) as watch:
        watch.note(f"loading {used.backbone} ({used.dtype} on {used.device})")
        if adapter.card.weights is None:
            watch.note(f"adapter {adapter.folder} has no hashes, not verified")
        pipe = load_controlled(adapter, used, note=watch.note)
        how = _asked(pipe, adapter, sampling)
        watch.note(
            f"{how.width}x{how.height}, {how.frames} frames, {how.steps} steps, guidance {how.guidance:g}, "
            f"control guidance {how.control_guidance:g}, {how.text_tokens} text tokens"
        )
        request = Request(adapter=adapter, rows=rows, sampling=how, **rest)
        for words in request_notes(pipe, request):
            watch.note(f"note: {words}")
        try:
            with full_disk_in_words(request.out, "free some and run the same command again: finished videos are kept"):
                return generate(pipe, request, used, watch)
        except KeyboardInterrupt:
            watch.note(f"{watch.finished} of {watch.videos} videos are finished in {request.out} and are kept")
            raise


def _show(rows: Sequence[Row], out: Path, json: bool) -> None:
    """Print the videos of a plan: as a table, or as JSON."""
    from rich.table import Table
    from rich.text import Text

    from generator.console.terminal import Console
    from trainer.generation.grid import control_words
    from trainer.generation.record import controls_tree

    videos = [(row, video, (out / f"{video.name}.mp4").exists()) for row in rows for video in row.videos]
    if json:
        trees = [
            {"video": f"{video.name}.mp4", "prompt": row.prompt, "seed": row.seed, "mode": row.mode}
            | {"controls": controls_tree(video.point), "labels": list(video.labels), "exists": exists}
            for row, video, exists in videos
        ]
        print(json_module.dumps({"out": str(out), "videos": trees}))
        return
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("prompt", "seed", "mode", *rows[0].videos[0].given, ""):
        table.add_column(column, overflow="fold")
    for row, video, exists in videos:
        pairs = zip(video.given, video.labels, strict=True)
        words = [f"{value} ({control_words(video.point[axis])})" for axis, value in pairs]
        table.add_row(Text(row.prompt), str(row.seed), row.mode, *words, "is there" if exists else "")
    Console(highlight=False).print(table)
    print(f"{len(videos)} videos into {out}, the first as {videos[0][1].name}.mp4; leave out --dry-run to make them")


def _told(report: GenerationReport, json: bool) -> str:
    if json:
        names = ("folder", "grid", "playing", "page", "index")
        paths = {name: None if (path := getattr(report, name)) is None else str(path) for name in names}
        return json_module.dumps({"made": report.made, "found": report.found, **paths, "notes": list(report.notes)})
    found = f", {report.found} were there" if report.found else ""
    playing = f"\nplaying: {report.playing}" if report.playing is not None else ""
    notes = "".join(f"\nnote: {words}" for words in report.notes)
    return f"{report.folder}: {report.made} videos made{found}\ngrid: {report.grid}{playing}\npage: {report.page}{notes}"
