"""ai-toolkit: one folder per frame count, captions beside the clips, and the `datasets:` block of its configuration.

From its example configurations and `DatasetConfig`: `num_frames` belongs to a dataset entry, shorter or longer clips are
resampled to it, so clips of one length share a folder; an entry with `num_frames: 1` takes pictures, so stills are PNG.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from generator.export import as_read
from generator.export.base import Exporter, ExportJob, media_file
from generator.export.files.entries import Entry, TextFile


def _entries(job: ExportJob) -> Iterator[Entry]:
    for row in job.rows:
        yield media_file(row, f"{row['frames']}f")
        yield TextFile(path=f"{row['frames']}f/{row['clip_id']}.txt", data=row["caption"].encode() + b"\n")
    yield TextFile(path="datasets.yaml", data=_config(job))


def _config(job: ExportJob) -> bytes:
    lines = [
        "# ai-toolkit datasets, written by stopdown export: put this into the process of a training configuration.",
        "datasets:",
    ]
    sizes = sorted({max(width, height) for width, height in job.shapes})
    for frames in job.frame_counts:
        lines += [
            f"  - folder_path: {json.dumps(job.place(f'{frames}f'), ensure_ascii=False)}",
            '    caption_ext: "txt"',
            f"    num_frames: {frames}",
            "    shrink_video_to_frames: true",
            f"    resolution: {json.dumps(sizes)}",
        ]
    return "\n".join([*lines, ""]).encode()


AI_TOOLKIT = Exporter(
    summary="clips with captions, a folder per frame count, and the datasets block of its YAML",
    entries=_entries,
    usage=lambda job: f"put the datasets block of {job.place('datasets.yaml')} into ai-toolkit's configuration",
    notes=as_read.notes,
)
