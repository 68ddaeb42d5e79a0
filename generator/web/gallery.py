"""The HTML gallery of a dataset: one self-contained file that plays offline, one row per scene, clips in order of control."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2

from generator.io.atomic import write_atomic
from generator.recipe.plan import ClipPlan, Plan, ScenePlan
from generator.verify.findings import AxisReport, ClipMeasurement, axis_reports, stored_measurements
from generator.versions.working.working_folder import WorkingFolder
from generator.web.gallery_pictures import POSTER_PX, data_uri, webp
from generator.web.glossary import Glossary
from generator.web.truth_layers import truth_layers
from scenes.axes import AXES
from scenes.axes.ticks import scale_values
from scenes.errors import InputError

Progress = Callable[[int, int], None]  # clips done, clips in all

EMBED_LIMIT_BYTES = 60_000_000
STILL_PX = 1024


@dataclass(frozen=True, kw_only=True)
class GalleryReport:
    """What was written: where, how many clips, how large, and whether the videos are inside the file or linked."""

    path: Path
    clips: int
    size_bytes: int
    embedded: bool


def gallery(
    dataset: WorkingFolder, out: Path, progress: Progress | None = None, *, embed_limit_bytes: int = EMBED_LIMIT_BYTES
) -> GalleryReport:
    """Write a dataset's gallery to one HTML file.

    Videos are embedded as data: URIs; where they would make more than `embed_limit_bytes`, the file links to clips/ by
    relative paths instead and says so in its header. Raises InputError for an `out` that is no .html file, DamagedError for a
    clip that cannot be decoded.
    """
    if out.suffix.lower() not in (".html", ".htm") or out.is_dir():
        raise InputError(f"{out} is no .html file; give a file name like {dataset.path / 'gallery.html'}")
    plan = dataset.plan
    rows = {row["clip_id"]: row for row in dataset.labels.to_pylist()}
    moving_bytes = sum(row["size_bytes"] for row in rows.values() if row["frames"] > 1)
    embedded = moving_bytes * 4 / 3 <= embed_limit_bytes
    measurements = stored_measurements(dataset)
    reports = axis_reports(plan, measurements)
    by_clip: dict[str, list[ClipMeasurement]] = {}
    for entry in measurements:
        by_clip.setdefault(entry.clip_id, []).append(entry)
    bars = {report.axis: report.median_bar for report in reports}
    scenes, done = [], 0
    for scene in plan.scenes:
        cells = []
        for clip in in_order(plan, scene):
            media = _media(dataset, clip, out, embedded)
            readings = [_reading(entry, bars[entry.axis]) for entry in by_clip.get(clip.clip_id, [])]
            cells.append({"clip": clip, "label": rows.get(clip.clip_id), "readings": readings, **media})
            done += 1
            if progress is not None:
                progress(done, len(plan.clips))
        with_truth = embedded and plan.recipe.truth is not None
        layers = truth_layers(dataset.truth(scene.clip_ids[0])) if with_truth else []
        scenes.append({**_scene_row(plan, scene, cells), "layers": layers})
    page = (
        environment()
        .get_template("gallery.html.j2")
        .render(
            plan=plan,
            scenes=scenes,
            facets=_facets(plan),
            pyramids=[_pyramid(plan, axis) for axis in plan.recipe.used_axes],
            axes=[_summary(report) for report in reports],
            embedded=embedded,
            layers=[layer["name"] for layer in scenes[0]["layers"]],
            ring=_aperture_ring(),
            glossary=Glossary(),
            most_frames=max(clip.frames for clip in plan.clips),
        )
    )
    data = page.encode()
    write_atomic(out, data)
    return GalleryReport(path=out, clips=len(plan.clips), size_bytes=len(data), embedded=embedded)


def in_order(plan: Plan, scene: ScenePlan) -> list[ClipPlan]:
    """Return a scene's clips in ascending order of control, by the first axis first."""
    clips = [plan.clip_by_id[clip_id] for clip_id in scene.clip_ids]
    return sorted(clips, key=lambda clip: tuple(clip.controls[axis] for axis in clip.axes))


def signed(value: float, digits: int) -> str:
    """Return a number with its sign, a true minus, and no negative zero."""
    text = f"{value:+.{digits}f}"
    return text.replace("-", "+" if float(text) == 0 else "−")


def environment() -> jinja2.Environment:
    """Return the templates of pages, text escaped."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("generator", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _media(dataset: WorkingFolder, clip: ClipPlan, out: Path, embedded: bool) -> dict[str, Any]:
    path = dataset.clip_path(clip.clip_id)
    frames_THW3 = dataset.frames(clip.clip_id)
    if clip.frames == 1:
        return {"still": webp(frames_THW3[0], STILL_PX, 92), "poster": "", "video": ""}
    relative = os.path.relpath(path.resolve(), out.resolve().parent)
    video = data_uri("video/mp4", path.read_bytes()) if embedded else quote(Path(relative).as_posix())
    return {"still": "", "poster": webp(frames_THW3[len(frames_THW3) // 2], POSTER_PX, 82), "video": video}


def _scene_row(plan: Plan, scene: ScenePlan, cells: list[dict[str, Any]]) -> dict[str, Any]:
    first: ClipPlan = cells[0]["clip"]
    captions = list(dict.fromkeys(cell["clip"].caption for cell in cells))
    outcomes = sorted({reading["outcome"] for cell in cells for reading in cell["readings"]})
    return {
        "id": scene.scene_id,
        "family": first.family,
        "layer": first.layer,
        "frames": first.frames,
        "axes": first.axes,
        "caption": captions[0],
        "search": " ".join([*captions, scene.scene_id]).lower(),
        "outcomes": outcomes,
        "rulers": [_ruler(plan, axis, cells) for axis in first.axes],
        "cells": cells,
    }


def _ruler(plan: Plan, axis: str, cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    law = plan.recipe.law(axis)
    low, high = sorted((law.value(-1.0), law.value(1.0)))
    return {
        "axis": axis,
        "numerals": [
            {"left": left, "shift": 0 if left < 5 else 100 if left > 95 else 50, "text": AXES[axis].format(value)}
            for value in scale_values(axis, low, high, 9)
            for left in [_percent(law.control(value))]
        ],
        "marks": [{"left": _percent(cell["clip"].controls[axis]), "clip_id": cell["clip"].clip_id} for cell in cells],
    }


def _percent(control: float) -> float:
    return round(50.0 * (control + 1.0), 3)


def _reading(entry: ClipMeasurement, bar: float) -> dict[str, Any]:
    axis = AXES[entry.axis]
    return {
        "axis": entry.axis,
        "value": axis.format(entry.labelled),
        "control": signed(entry.control, 2),
        "measured": "" if entry.measured is None else axis.format(entry.measured),
        "error": ""
        if entry.error is None
        else f"{signed(entry.error, 2 if axis.error_unit == 'stop' else 1)} {axis.error_unit}",
        "confidence": f"{entry.confidence:.2f}",
        "note": entry.note,
        "outcome": entry.outcome(bar),
    }


def _summary(report: AxisReport) -> dict[str, Any]:
    digits = 3 if report.unit == "stop" else 2
    return {
        "report": report,
        "median": "none" if report.median_error is None else f"{report.median_error:.{digits}f}",
        "worst": "none" if report.worst_error is None else f"{report.worst_error:.{digits}f}",
        "rank": "none" if report.lowest_rank is None else f"{report.lowest_rank:.3f}",
        "median_bar": f"{report.median_bar:g}",
        "rank_bar": f"{report.rank_bar:g}",
    }


def _facets(plan: Plan) -> list[dict[str, Any]]:
    """Return the filters: only what differs within the dataset is worth one."""
    values: dict[str, list[str]] = {
        "axis": list(plan.recipe.used_axes),
        "layer": [str(layer) for layer in sorted({clip.layer for clip in plan.clips}, reverse=True)],
        "family": list(dict.fromkeys(clip.family for clip in plan.clips)),
        "frames": [str(frames) for frames in sorted({clip.frames for clip in plan.clips})],
    }
    return [{"name": name, "values": several} for name, several in values.items() if len(several) > 1]


def _pyramid(plan: Plan, axis: str) -> dict[str, Any]:
    """Return the drawn control values of an axis as the coordinates of a small plot: a band per layer, a line per scene."""
    width, left, band, top = 320.0, 30.0, 24.0, 8.0
    layers = sorted({clip.layer for clip in plan.clips if axis in clip.axes})
    law = plan.recipe.law(axis)

    def x_of(control: float) -> float:
        return round(left + (control + 1.0) / 2.0 * (width - left - 14.0), 2)

    bands = []
    for position, layer in enumerate(layers):
        its_scenes = list(dict.fromkeys(clip.scene_id for clip in plan.clips if clip.layer == layer and axis in clip.axes))
        line = {scene_id: number for number, scene_id in enumerate(its_scenes)}
        pitch = (band - 6.0) / len(its_scenes)
        dots = [
            {"x": x_of(clip.controls[axis]), "y": round(top + position * band + 3.0 + pitch * (line[clip.scene_id] + 0.5), 2)}
            for clip in plan.clips
            if clip.scene_id in line and axis in clip.axes
        ]
        bins = [x_of(-1.0 + 2.0 * edge / layer) for edge in range(layer + 1)]
        bands.append(
            {"layer": layer, "y": top + position * band, "dots": dots, "bins": bins, "radius": max(1.0, min(2.6, pitch / 2.4))}
        )
    foot = top + len(layers) * band
    numerals = [{"x": x_of(control), "text": AXES[axis].format(law.value(control))} for control in (-1.0, 0.0, 1.0)]
    return {
        "axis": axis,
        "width": width,
        "height": foot + 22.0,
        "band": band,
        "foot": foot,
        "bands": bands,
        "numerals": numerals,
    }


def _aperture_ring() -> list[str]:
    return ["1.4", "2", "2.8", "4", "5.6", "8", "11", "16", "22"]
