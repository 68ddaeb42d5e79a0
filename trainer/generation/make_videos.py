"""A whole run: load once, make what is missing, leave a grid, a page and an index; interrupted, it goes on where it was."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from diffusers import WanPipeline

from generator.io.atomic import sweep_left_over, write_atomic
from generator.media.images import png_bytes
from generator.media.video import decode, encode
from scenes.arrays import Bytes
from scenes.errors import InputError
from trainer.adapters.saved import SavedAdapter
from trainer.backbones.load import experts, fingerprint
from trainer.backbones.text_length import length_notes
from trainer.control.config import AdapterConfig
from trainer.control.curve import ControlCurve
from trainer.control.laws import AxisControl
from trainer.control.modes import PARTS, Mode
from trainer.generation.fonts import not_drawable, one_line
from trainer.generation.grid import lay_out, moving_grid, still_grid
from trainer.generation.load_pipeline import Loading
from trainer.generation.plan import PlannedVideo, Row
from trainer.generation.record import (
    CRF,
    PRESET,
    State,
    controls_tree,
    read_record,
    recipe_digest,
    refuse,
    run_source,
    state_of,
    video_recipe,
    write_json,
    write_video,
)
from trainer.generation.sampler import Sampling, check_sampling, generation_of
from trainer.generation.sweep_page import write_page
from trainer.pipelines.controlled_wan import ControlledWan, check_control_acts
from trainer.pipelines.extra_loras import lora_record

SHORT = 60  # letters of a prompt that name it in a line
FPS = 16  # the rate of the datasets, for which exposures are meant


class GenerationWatch(Protocol):
    """Told how far a run is."""

    def started(self, videos: int, finished: int, steps: int) -> None:
        """The run has `videos`, of which an earlier one finished some; each takes `steps` denoising steps."""
        ...

    def stepped(self, steps: int) -> None:
        """So many denoising steps were made since the last call, counted per video."""
        ...

    def done(self, video: PlannedVideo) -> None:
        """A video is on the disk."""
        ...


@dataclass(frozen=True, kw_only=True)
class GenerationReport:
    """What a run left: its folder, videos made and found, and the files about all of them; None for what was left out."""

    folder: Path
    made: int
    found: int
    grid: Path
    playing: Path | None
    page: Path
    index: Path
    notes: tuple[str, ...] = ()  # what a person should know of the grid


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to generate where: `rows` from `trainer.generation.plan`, the rest as the commands name it."""

    out: Path
    adapter: SavedAdapter
    rows: Sequence[Row]
    sampling: Sampling
    fps: int = FPS
    batch: int = 1
    force: bool = False
    replace_others: bool = False  # make anew what was made with other settings, and keep the rest


def generate(pipe: ControlledWan, request: Request, loading: Loading, watch: GenerationWatch) -> GenerationReport:
    """Make the videos of a request and return what was left; those finished before with the same recipe are kept.

    Raises InputError for what the backbone cannot do and for videos of other recipes in the folder, before anything is made.
    """
    check_guided([adapter.config for adapter in pipe.adapters.values()], request)
    made, found = make_videos(pipe, request, loading, watch)
    return _leave(request, pipe.axes, loading, made=made, found=found)


def make_videos(pipe: ControlledWan, request: Request, loading: Loading, watch: GenerationWatch) -> tuple[int, int]:
    """Make the videos of a request that are missing, without a page about them; returns how many were made and found.

    Raises InputError as `generate` does.
    """
    check_request(pipe, request)
    recipes = _recipes(pipe, request, loading)
    request.out.mkdir(parents=True, exist_ok=True)
    sweep_left_over(request.out)
    missing = _missing(request, recipes)
    videos = [video for row in request.rows for video in row.videos]
    watch.started(len(videos), len(videos) - len(missing), request.sampling.steps)
    for row in request.rows:
        todo = [video for video in row.videos if video.name in missing]
        for video, frames_THW3 in _frames(pipe, row, todo, request, watch):
            write_video(request.out, video, recipes[video.name], frames_THW3, request.fps)
            watch.done(video)
    return len(missing), len(videos) - len(missing)


def check_guided(configs: Sequence[AdapterConfig], request: Request) -> None:
    """Raise InputError for a control guidance where no row of a request has a control that acts."""
    strength = max((abs(video.strength) for row in request.rows for video in row.videos), default=0.0)
    check_control_acts(configs, [row.mode for row in request.rows], strength, request.sampling.control_guidance)


def check_request(pipe: WanPipeline, request: Request) -> None:
    """Raise InputError for what cannot be sampled or written; `pipe` may have no weights (`trainer.backbones.weightless`)."""
    check_sampling(pipe, request.sampling)
    if not 1 <= request.fps <= 240:
        raise InputError(f"{request.fps} fps cannot be; give 1 to 240, datasets have {FPS}")
    if request.batch < 1:
        raise InputError(f"batch {request.batch} cannot be; give 1 or more videos at a time")
    if request.out.exists() and not request.out.is_dir():
        raise InputError(f"{request.out} is a file; give --out a folder")
    for control in {control for row in request.rows for video in row.videos for _, control in video.controls}:
        if isinstance(control, ControlCurve):
            control.frame_controls(request.sampling.frames, request.fps)  # refuses one that goes on after the video


def _recipes(pipe: ControlledWan, request: Request, loading: Loading) -> dict[str, dict[str, Any]]:
    """Return the recipe of every video, by name."""
    source = run_source(
        backbone=str(loading.backbone),
        fingerprints={name: fingerprint(expert) for name, expert in experts(pipe).items()},
        adapter=request.adapter,
        scheduler={"class": type(pipe.scheduler).__name__, **pipe.scheduler.config},
        dtype=str(loading.dtype),
        quantize=loading.quantize,
    ) | lora_record(loading.loras)
    return {
        video.name: video_recipe(video, request.sampling, request.fps, source, pipe.axes)
        for row in request.rows
        for video in row.videos
    }


def _missing(request: Request, recipes: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Return the names of the videos to make; raises InputError for one that is there and not the one asked for."""
    missing = set()
    for name, recipe in recipes.items():
        state = state_of(request.out, name, recipe_digest(recipe))
        if state not in (State.ABSENT, State.FINISHED) and not (request.force or request.replace_others):
            raise refuse(request.out, name, state, recipe)
        if state is not State.FINISHED or request.force:
            missing.add(name)
    return missing


def _frames(
    pipe: ControlledWan, row: Row, videos: Sequence[PlannedVideo], request: Request, watch: GenerationWatch
) -> Iterator[tuple[PlannedVideo, Bytes]]:
    """Yield videos of a row with their frames; a mode that knows no control has the same ones for all, sampled once."""
    if not videos:
        return
    alike = not PARTS[Mode(row.mode)].control or videos[0].strength == 0
    before = 0

    def count(done: int, _all: int) -> None:
        nonlocal before
        watch.stepped((done - before) * (len(videos) if alike else 1))
        before = done

    sampled = generation_of(request.adapter.method).sample(
        pipe,
        row.prompt,
        [video.point for video in (videos[:1] if alike else videos)],
        sampling=request.sampling,
        seed=row.seed,
        negative=row.negative,
        mode=row.mode,
        strength=videos[0].strength,
        batch=request.batch,
        fps=request.fps,
        on_step=count,
    )
    yield from zip(videos, itertools.repeat(next(sampled)) if alike else sampled, strict=False)


def _leave(request: Request, axes: Sequence[AxisControl], loading: Loading, *, made: int, found: int) -> GenerationReport:
    """Write grid.png, grid.mp4, sweep.html and index.json about finished videos."""
    out, rows, sampling = request.out, request.rows, request.sampling
    frames: Callable[[PlannedVideo], Bytes] = lambda video: decode(out / f"{video.name}.mp4")  # noqa: E731
    names = {axis: None for video in rows[0].videos for axis in video.given}
    title = f"{', '.join(names) or 'No control'} · {request.adapter.name}"
    facts = {
        "backbone": Path(str(loading.backbone)).name,
        "picture": f"{sampling.width} × {sampling.height}",
        "frames": f"{sampling.frames} at {request.fps} fps",
        "steps": str(sampling.steps),
        "guidance": f"{sampling.guidance:g}",
        "control guidance": f"{sampling.control_guidance:g}",
        "trained": f"{request.adapter.card.step} steps",
    }
    words = "  ·  ".join(f"{name} {value}" for name, value in facts.items())
    layout = lay_out(rows, title, words, (sampling.width, sampling.height))
    write_atomic(out / "grid.png", png_bytes(still_grid(layout, rows, frames)))
    playing = _play(out / "grid.mp4", moving_grid(layout, rows, frames), request.fps)
    write_page(out / "sweep.html", rows, axes, frames, title=title, facts=facts, fps=request.fps)
    write_json(out / "index.json", _index(request, loading))
    boxes = not_drawable(row.prompt for row in rows)
    return GenerationReport(
        folder=out,
        made=made,
        found=found,
        grid=out / "grid.png",
        playing=playing,
        page=out / "sweep.html",
        index=out / "index.json",
        notes=(f"no font here has {boxes}: boxes stand for them in the grid, sweep.html shows them",) if boxes else (),
    )


def request_notes(pipe: WanPipeline, request: Request) -> tuple[str, ...]:
    """Return what in a request does less than it seems to: a negative prompt without guidance, texts that are cut.

    A pipeline without weights has no tokenizer, so that of cut texts nothing is said.
    """
    sampling = request.sampling
    notes: list[str] = []
    if sampling.guidance <= 1 and any(row.negative for row in request.rows):
        notes.append(
            f"the negative prompt does nothing at guidance {sampling.guidance:g}, which makes no pass for it to steer; give a "
            "guidance above 1"
        )
    if pipe.tokenizer is None:
        return tuple(notes)
    texts = {f"prompt '{_short(row.prompt)}'": row.prompt for row in request.rows}
    texts |= {f"negative prompt '{_short(row.negative)}'": row.negative for row in request.rows if row.negative}
    return (*notes, *length_notes(pipe.tokenizer, texts, sampling.text_tokens, "write less, or raise --text-tokens"))


def _short(text: str) -> str:
    line = one_line(text)
    return line if len(line) <= SHORT else f"{line[: SHORT - 1]}…"


def _play(path: Path, frames_THW3: np.ndarray | None, fps: int) -> Path | None:
    """Write the playing grid; an earlier one must not stay where there is none now."""
    if frames_THW3 is None:
        path.unlink(missing_ok=True)
        return None
    write_atomic(path, encode(frames_THW3, fps, CRF, PRESET))
    return path


def _index(request: Request, loading: Loading) -> dict[str, Any]:
    records = []
    for row in request.rows:
        for video in row.videos:
            record = read_record(request.out, video.name) or {}
            records.append(
                {
                    "video": f"{video.name}.mp4",
                    "record": f"{video.name}.json",
                    "prompt": row.prompt,
                    "seed": row.seed,
                    "mode": row.mode,
                    "strength": video.strength,
                    "labels": dict(zip(video.given, video.labels, strict=True)),
                    "controls": controls_tree(video.point),
                    "values": record["recipe"]["values"],
                    "sha256": record["sha256"],
                }
            )
    return {
        "adapter": str(request.adapter.folder),
        "backbone": loading.backbone,
        "sampling": asdict(request.sampling),
        "fps": request.fps,
        "videos": records,
    }
