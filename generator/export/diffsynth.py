"""DiffSynth-Studio: clips and a metadata.csv with `video,prompt`, paths relative to --dataset_base_path.

From its docs/en/Pipeline_Usage/Model_Training.md ("Preparing Datasets").
"""

from __future__ import annotations

from collections.abc import Iterator

from generator.export import as_read
from generator.export.base import Exporter, ExportJob, clip_file
from generator.export.files.entries import Entry, TextFile
from generator.export.files.text import csv_table


def _entries(job: ExportJob) -> Iterator[Entry]:
    for row in job.rows:
        yield clip_file(row, "clips")
    rows = [(f"clips/{row['clip_id']}.mp4", row["caption"]) for row in job.rows]
    yield TextFile(path="metadata.csv", data=csv_table(("video", "prompt"), rows))


def _usage(job: ExportJob) -> str:
    width, height = as_read.fitting_size(*job.shapes[-1])
    return (
        f"pass --dataset_base_path {job.options.root} --dataset_metadata_path {job.place('metadata.csv')} "
        f"--data_file_keys video --width {width} --height {height} --num_frames {job.frame_counts[-1]} to DiffSynth-Studio"
    )


DIFFSYNTH = Exporter(summary="clips and a metadata.csv (video, prompt)", entries=_entries, usage=_usage, notes=as_read.notes)
