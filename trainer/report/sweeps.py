"""The sweeps of a report as media: a prompt's videos at all controls in one mosaic video, so that they play in step.

Array legend: N controls, T frames, H rows, W columns, 3 channels (sRGB, uint8).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from generator.media.video import decode, encode
from generator.web.gallery import signed
from generator.web.gallery_pictures import data_uri, webp
from scenes.arrays import Bytes
from scenes.axes import AXES
from scenes.control_axis import ErrorUnit
from trainer.evaluation.results import EvaluationReport, SweepReading, VideoReading

MOST_CELL_PX = 320
DECODED_BYTES = 48e6  # of one mosaic in the browser
CRF, PRESET = 18, "medium"
MAIN_PROMPTS, OTHER_PROMPTS = 12, 4
POSTER_PX = 320
FAR: Mapping[ErrorUnit, float] = {"stop": 0.5, "mired": 50.0}  # from the commanded value, of a reading on the probe's own scale
FREE = "What a scene is at c = 0 is the generator's choice; commanded is the difference from it."
MEDIA_BYTES = 18_000_000  # of all mosaics, before base64


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one position of the slider says of a video."""

    reading: str
    note: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One prompt's sweep: a mosaic of N pictures in rows of `columns`, and what the probe read in each."""

    arm: str
    prompt: str
    seed: int
    count: int
    columns: int
    width: int
    height: int
    media: str
    still: bool
    poster: str
    steps: tuple[Step, ...]
    rho: str


@dataclass(frozen=True, kw_only=True)
class SweepStage:
    """An axis with its slider: a label, a control and the median reading for each position; cells by arm."""

    axis: str
    unit: ErrorUnit
    labels: tuple[str, ...]
    controls: tuple[str, ...]
    medians: tuple[str, ...]
    trained: tuple[bool, ...]
    start: int  # the position of c = 0
    fps: int
    arms: tuple[str, ...]
    cells: tuple[Cell, ...]
    left_out: int  # sweeps that are not shown


def make_stages(report: EvaluationReport, folder: Path, *, media_bytes: int = MEDIA_BYTES) -> tuple[SweepStage, ...]:
    """Return a stage for each axis, with as many prompts as fit into `media_bytes` in all."""
    stages = []
    spent = 0
    for number, axis in enumerate(report.axes):
        own = [sweep for sweep in report.sweeps if sweep.axis == axis and len(sweep.videos) == _positions(report, axis)]
        own = [sweep for sweep in own if len({video.video for video in sweep.videos}) > 1]
        chosen = _chosen(own, report.main_arm)
        share = (media_bytes - spent) / (len(report.axes) - number)
        cells: list[Cell] = []
        used = 0
        for sweep in chosen:
            cell, size = make_cell(sweep, folder, commanded(report, axis), int(report.settings["fps"]))
            if cells and used + size > share:
                break
            cells.append(cell)
            used += size
        spent += used
        stages.append(_stage(report, axis, own, cells))
    return tuple(stages)


def commanded(report: EvaluationReport, axis: str) -> dict[float, float]:
    """Return the values that controls of an axis command, by control; nothing for an adapter without a unit law."""
    curve = next(one.curve for one in report.accuracy if (one.axis, one.arm) == (axis, report.main_arm))
    return {point.control: point.value for point in curve if point.value is not None}


def make_cell(sweep: SweepReading, folder: Path, values: Mapping[float, float], fps: int) -> tuple[Cell, int]:
    """Return a sweep as a cell, and the bytes of its mosaic; `values` are those commanded, by control."""
    videos = [decode(folder / video.video) for video in sweep.videos]
    mosaic_THW3, columns, (width, height) = mosaic(videos)
    still = len(mosaic_THW3) == 1
    middle = len(mosaic_THW3) // 2
    start = neutral_position(sweep.videos)
    row, column = divmod(start, columns)
    poster_HW3 = mosaic_THW3[middle, row * height : (row + 1) * height, column * width : (column + 1) * width]
    data = b"" if still else encode(mosaic_THW3, fps, CRF, PRESET)
    media = webp(mosaic_THW3[0], max(mosaic_THW3.shape[1:3]), 90) if still else data_uri("video/mp4", data)
    cell = Cell(
        arm=sweep.arm,
        prompt=sweep.prompt,
        seed=sweep.seed,
        count=len(mosaic_THW3),
        columns=columns,
        width=width,
        height=height,
        media=media,
        still=still,
        poster=webp(np.ascontiguousarray(poster_HW3), POSTER_PX, 82),
        steps=tuple(step_of(video, sweep.axis, values.get(video.control)) for video in sweep.videos),
        rho="" if sweep.rho is None else f"ρ {sweep.rho:.2f}",
    )
    return cell, len(media) * 3 // 4


def mosaic(videos: Sequence[Bytes]) -> tuple[Bytes, int, tuple[int, int]]:
    """Return videos side by side in rows [T, H, W, 3], the pictures in a row, and a picture's width and height.

    All have as many frames as the shortest; pictures are made smaller where the decoded mosaic would be too large to hold.
    """
    count = min(len(video) for video in videos)
    columns = math.ceil(math.sqrt(len(videos)))
    rows = math.ceil(len(videos) / columns)
    height, width = videos[0].shape[1:3]
    room_px = DECODED_BYTES / 4 / count / (rows * columns)
    factor = min(1.0, MOST_CELL_PX / max(width, height), math.sqrt(room_px / (width * height)))
    size = (max(2, int(width * factor) // 2 * 2), max(2, int(height * factor) // 2 * 2))  # yuv420p halves both sides
    page = np.zeros((count, rows * size[1], columns * size[0], 3), dtype=np.uint8)
    for place, video_THW3 in enumerate(videos):
        row, column = divmod(place, columns)
        for at in range(count):
            picture = Image.fromarray(video_THW3[at])
            fitted = picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)
            page[at, row * size[1] : (row + 1) * size[1], column * size[0] : (column + 1) * size[0]] = np.asarray(fitted)
    return page, columns, size


def step_of(video: VideoReading, axis: str, value: float | None) -> Step:
    """Return what is said of one video: the distance that was read, and the value on the probe's own scale if it has one.

    Where that is far from the commanded `value`, the note says why it may be: a generated scene has a cast, or a blur, of its
    own, and a control moves it from there.
    """
    if video.measured is None and video.absolute is None:
        return Step(reading="not read", note=video.note)
    unit, parts, notes = AXES[axis].error_unit, [], [video.note]
    if video.measured is not None:
        parts.append(distance(video.measured, unit))
    if video.absolute is not None:
        shown = AXES[axis].format(video.absolute)
        parts.append(f"{shown} on its own")
        if value is not None and abs(AXES[axis].distance(video.absolute, value)) > FAR[unit]:
            notes.append(f"{shown} where {video.label} is commanded: {FREE[:1].lower()}{FREE[1:]}")
    return Step(reading=" · ".join(parts), note=" ".join(note for note in notes if note))


def distance(measured: float, unit: ErrorUnit) -> str:
    """Return a distance in words: `+1.03 stops`, `−42 mired`."""
    return f"{signed(measured, 2)} stops" if unit == "stop" else f"{signed(measured, 0)} mired"


def neutral_position(videos: Sequence[VideoReading]) -> int:
    """Return the position of c = 0."""
    return min(range(len(videos)), key=lambda place: abs(videos[place].control))


def _positions(report: EvaluationReport, axis: str) -> int:
    return max((len(sweep.videos) for sweep in report.sweeps if sweep.axis == axis), default=0)


def _chosen(sweeps: Sequence[SweepReading], main: str) -> list[SweepReading]:
    """Return the sweeps to show: one seed for each prompt, many of the main arm, some of the others."""
    found: list[SweepReading] = []
    for arm in dict.fromkeys([main, *(sweep.arm for sweep in sweeps)]):
        first: dict[str, SweepReading] = {}
        for sweep in sweeps:
            if sweep.arm == arm:
                first.setdefault(sweep.prompt, sweep)
        found += list(first.values())[: MAIN_PROMPTS if arm == main else OTHER_PROMPTS]
    return found


def _stage(report: EvaluationReport, axis: str, sweeps: Sequence[SweepReading], cells: Sequence[Cell]) -> SweepStage:
    own = next(one for one in report.accuracy if one.axis == axis and one.arm == report.main_arm)
    return SweepStage(
        axis=axis,
        unit=own.unit,
        labels=tuple(point.label for point in own.curve),
        controls=tuple(f"c {signed(point.control, 2)}" for point in own.curve),
        medians=tuple("not read" if point.median is None else distance(point.median, own.unit) for point in own.curve),
        trained=tuple(abs(point.control) <= 1 + 1e-9 for point in own.curve),
        start=min(range(len(own.curve)), key=lambda place: abs(own.curve[place].control)),
        fps=int(report.settings["fps"]),
        arms=tuple(dict.fromkeys(cell.arm for cell in cells)),
        cells=tuple(cells),
        left_out=len(sweeps) - len(cells),
    )
