"""pairs: a condition and a target of one scene a line, in the two tables that trainers of video-to-video adapters read.

`pairs.jsonl` has musubi-tuner's keys (`video_path`, `control_path`, `caption`; two pictures are `control_path_0` and
`control_path_1`), `pairs.csv` those of LTX's trainer (`video,reference_video,caption`), `in_context.csv`
those of DiffSynth-Studio (`video,in_context_videos,prompt`). The first also says by how much each control differs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from generator.export.base import Exporter, ExportJob, Row
from generator.export.files.entries import ClipFile, Entry, MadeFile, StillFile, TextFile
from generator.export.files.text import csv_table, json_lines
from generator.pairs.dataset_pairs import Pair, Side, pairs_of
from generator.truth.read_truth import TruthReader
from generator.truth.truth_names import SHARP_FILE


def _entries(job: ExportJob) -> Iterator[Entry]:
    rows, pairs = {row["clip_id"]: row for row in job.rows}, _pairs(job)
    sides = [side for pair in pairs for side in (pair.condition, pair.target)]
    clips = {side.clip_id for side in sides if side.frames == "all"}
    for clip_id in sorted(clips):
        yield ClipFile(path=f"clips/{clip_id}.mp4", clip_id=clip_id, sha256=rows[clip_id]["sha256_bytes"])
    for scene_id, clip_id in {rows[side.clip_id]["scene_id"]: side.clip_id for side in sides if side.frames == "sharp"}.items():
        reader = job.source.truth(clip_id)
        reader.check("sharp")
        yield MadeFile(path=f"sharp/{scene_id}.mp4", write=partial(_write_sharp, reader), size_bytes=reader.size(SHARP_FILE))
    for pair in pairs:
        for path, frame in _stills(pair, rows):
            digest = rows[pair.condition.clip_id]["sha256_bytes"]
            yield StillFile(path=path, clip_id=pair.condition.clip_id, sha256=digest, frame=frame)
    conditions = [[job.place(path) for path in _condition(pair, rows)] for pair in pairs]
    targets = [job.place(_video(pair.target, pair)) for pair in pairs]
    lines = zip(pairs, targets, conditions, strict=True)
    yield TextFile(path="pairs.jsonl", data=json_lines(_line(*line) for line in lines))
    joined = [paths[0] if len(paths) == 1 else json.dumps(paths) for paths in conditions]
    table = [(target, given, pair.caption) for pair, target, given in zip(pairs, targets, joined, strict=True)]
    yield TextFile(path="pairs.csv", data=csv_table(("video", "reference_video", "caption"), table))
    yield TextFile(path="in_context.csv", data=csv_table(("video", "in_context_videos", "prompt"), table))


def _pairs(job: ExportJob) -> tuple[Pair, ...]:
    assert job.options.pairs is not None  # the command settled it
    return pairs_of(job.table, job.options.pairs)


def _stills(pair: Pair, rows: dict[str, Row]) -> list[tuple[str, int]]:
    """Return the pictures of a condition: path and number of the frame."""
    clip_id, which = pair.condition.clip_id, pair.condition.frames
    if which in ("all", "sharp"):
        return []
    last = [(f"conditions/{clip_id}-last.png", rows[clip_id]["frames"] - 1)] if which == "first_and_last" else []
    return [(f"conditions/{clip_id}.png", 0), *last]


def _condition(pair: Pair, rows: dict[str, Row]) -> list[str]:
    return [path for path, _ in _stills(pair, rows)] or [_video(pair.condition, pair)]


def _video(side: Side, pair: Pair) -> str:
    """Return the path of a side that is a whole video."""
    return f"sharp/{pair.scene_id}.mp4" if side.frames == "sharp" else f"clips/{side.clip_id}.mp4"


def _write_sharp(reader: TruthReader, path: Path) -> None:
    path.write_bytes(reader.file(SHARP_FILE))


def _line(pair: Pair, target: str, conditions: list[str]) -> dict[str, Any]:
    names = ["control_path"] if len(conditions) == 1 else [f"control_path_{index}" for index in range(len(conditions))]
    line: dict[str, Any] = {"video_path": target, **dict(zip(names, conditions, strict=True)), "caption": pair.caption}
    for axis, change in pair.control_change.items():
        if pair.condition.clip_id != pair.target.clip_id:
            line |= {f"{axis}_control_change": change, f"{axis}_distance": pair.distance[axis]}
    return line


def _usage(job: ExportJob) -> str:
    return (
        f"give {job.place('pairs.jsonl')} (musubi-tuner), {job.place('pairs.csv')} (LTX's trainer) or "
        f"{job.place('in_context.csv')} (DiffSynth-Studio), or `generator.pairs.pair_files` in Python"
    )


def _notes(job: ExportJob) -> tuple[str, ...]:
    return (f"{len(_pairs(job))} pairs",)


PAIRS = Exporter(
    summary="a condition and a target a line (needs --pairs KIND): pairs.jsonl and two .csv tables",
    entries=_entries,
    usage=_usage,
    takes_pairs=True,
    notes=_notes,
)
