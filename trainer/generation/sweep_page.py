"""The page of a sweep: one self-contained HTML file that plays all videos from one clock, with the gallery's player."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2

from generator.io.atomic import write_atomic
from generator.web.gallery import EMBED_LIMIT_BYTES, STILL_PX, environment
from generator.web.gallery_pictures import POSTER_PX, data_uri, webp
from scenes.arrays import Bytes
from scenes.axes.ticks import scale_values
from trainer.control.curve import ControlCurve
from trainer.control.laws import AxisControl, NoLaw
from trainer.generation.grid import control_words, row_words
from trainer.generation.plan import PlannedVideo, Row


def write_page(
    out: Path,
    rows: Sequence[Row],
    axes: Sequence[AxisControl],
    frames: Callable[[PlannedVideo], Bytes],
    *,
    title: str,
    facts: Mapping[str, str],
    fps: int,
) -> bool:
    """Write the page of videos that lie beside it as NAME.mp4; returns whether it embeds them, or links for their size."""
    folder = out.parent
    videos = [video for row in rows for video in row.videos]
    embedded = sum((folder / f"{video.name}.mp4").stat().st_size for video in videos) * 4 / 3 <= EMBED_LIMIT_BYTES
    given = [axis for axis in axes if axis.name in videos[0].given]
    scenes, longest = [], 1
    for number, row in enumerate(rows):
        cells = [_cell(folder, video, frames(video), given, embedded) for video in row.videos]
        longest = max([longest, *(cell["frames"] for cell in cells)])
        scenes.append(
            {
                "id": f"row-{number}",
                "row": row,
                "words": row_words(row),
                "search": f"{row.prompt} seed {row.seed} {row.mode}".lower(),
                "rulers": [ruler for axis in given if (ruler := _ruler(axis, row.videos)) is not None],
                "cells": cells,
            }
        )
    shared = environment()
    shared.loader = jinja2.ChoiceLoader([jinja2.PackageLoader("trainer", "templates"), shared.loader or jinja2.DictLoader({})])
    page = shared.get_template("sweep.html.j2").render(
        title=title, facts=facts, scenes=scenes, facets=_facets(rows), fps=fps, embedded=embedded, most_frames=longest
    )
    write_atomic(out, page.encode())
    return embedded


def _cell(
    folder: Path, video: PlannedVideo, frames_THW3: Bytes, given: Sequence[AxisControl], embedded: bool
) -> dict[str, Any]:
    count, height, width, _ = frames_THW3.shape
    path = folder / f"{video.name}.mp4"
    moving = count > 1
    middle_HW3 = frames_THW3[count // 2]
    linked = quote(os.path.relpath(path, folder))
    return {
        "name": video.name,
        "frames": count,
        "width": width,
        "height": height,
        "still": "" if moving else webp(middle_HW3, STILL_PX, 92),
        "poster": webp(middle_HW3, POSTER_PX, 82) if moving else "",
        "video": "" if not moving else data_uri("video/mp4", path.read_bytes()) if embedded else linked,
        "values": [
            {"axis": axis.name, "value": label, "control": control_words(video.point[axis.name])}
            for axis, label in zip(given, video.labels, strict=True)
        ],
    }


def _ruler(axis: AxisControl, videos: Sequence[PlannedVideo]) -> dict[str, Any] | None:
    """Return an axis's scale over the controls of a row, with their marks.

    None for one value, for curves and for an axis without units.
    """
    placed = [(control, video.name) for video in videos if not isinstance(control := video.point[axis.name], ControlCurve)]
    low, high = min(placed, default=(0.0, ""))[0], max(placed, default=(0.0, ""))[0]
    if isinstance(axis.law, NoLaw) or high - low < 1e-6:
        return None

    def percent(control: float) -> float:
        return round(100.0 * (control - low) / (high - low), 3)

    least, most = sorted((axis.law.value(low), axis.law.value(high)))
    numerals = [
        (percent(axis.law.control(value)), axis.axis.format(value)) for value in scale_values(axis.name, least, most, 9)
    ]
    return {
        "axis": axis.name,
        "numerals": [
            {"left": left, "shift": 0 if left < 5 else 100 if left > 95 else 50, "text": text} for left, text in numerals
        ],
        "marks": [{"left": percent(control), "clip_id": name} for control, name in placed],
    }


def _facets(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the filters: only what differs within the sweep is worth one."""
    values = {"mode": list(dict.fromkeys(row.mode for row in rows)), "seed": [str(s) for s in sorted({r.seed for r in rows})]}
    return [{"name": name, "values": several} for name, several in values.items() if len(several) > 1]
