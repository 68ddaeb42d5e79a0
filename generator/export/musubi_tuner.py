"""musubi-tuner: one JSON Lines file and one `[[datasets]]` of a TOML per frame count.

Layout from its docs/dataset_config.md: `video_path` and `caption` per line; `target_frames` 4n+1; a cache folder of its own per
dataset; `source_fps` left out, so that every frame of a clip is used as it is.
"""

from __future__ import annotations

from collections.abc import Iterator

from generator.export import as_read
from generator.export.base import Exporter, ExportJob, clip_file
from generator.export.files.entries import Entry, TextFile
from generator.export.files.text import json_lines, toml_lines


def _entries(job: ExportJob) -> Iterator[Entry]:
    for row in job.rows:
        yield clip_file(row, "clips")
    for frames in job.frame_counts:
        for shape in job.shapes:
            rows = [row for row in job.rows if row["frames"] == frames and (row["width"], row["height"]) == shape]
            if rows:
                lines = [{"video_path": job.place(f"clips/{row['clip_id']}.mp4"), "caption": row["caption"]} for row in rows]
                yield TextFile(path=f"{_name(frames, shape)}.jsonl", data=json_lines(lines))
    yield TextFile(path="dataset.toml", data=_config(job))


def _name(frames: int, shape: tuple[int, int]) -> str:
    return f"metadata_{frames}f_{shape[0]}x{shape[1]}"


def _config(job: ExportJob) -> bytes:
    lines = [
        "# musubi-tuner dataset, written by stopdown export. Paths are relative to the folder that training is started in.",
        "[general]",
        *toml_lines({"batch_size": 1, "enable_bucket": True, "bucket_no_upscale": False}),
    ]
    present = {(row["frames"], (row["width"], row["height"])) for row in job.rows}
    for frames, shape in sorted(present):
        name = _name(frames, shape)
        lines += ["", "[[datasets]]"]
        lines += toml_lines(
            {
                "video_jsonl_file": job.place(f"{name}.jsonl"),
                "cache_directory": job.place(f"cache/{name}"),
                "resolution": list(shape),
                "target_frames": [frames],
                "frame_extraction": "head",
                "num_repeats": 1,
            }
        )
    return "\n".join([*lines, ""]).encode()


MUSUBI_TUNER = Exporter(
    summary="JSON Lines with captions and a dataset.toml",
    entries=_entries,
    usage=lambda job: f"pass --dataset_config {job.place('dataset.toml')} to musubi-tuner, started in this folder",
    notes=as_read.notes,
)
