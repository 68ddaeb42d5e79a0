"""finetrainers: clips and a metadata.csv with `file_name` and `caption`, which it opens as a Hugging Face VideoFolder.

From its docs/dataset/README.md ("CSV/JSON/JSONL format"). The two-list layout of the same page is not used: the released loader
looks for a metadata file first and fails without one. No file may be named after a split (`training.json`): `datasets` would
take it for all of the data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from generator.export import as_read
from generator.export.base import Exporter, ExportJob, clip_file
from generator.export.files.entries import Entry, TextFile
from generator.export.files.text import csv_table


def _entries(job: ExportJob) -> Iterator[Entry]:
    for row in job.rows:
        yield clip_file(row, "clips")
    rows = [(f"clips/{row['clip_id']}.mp4", row["caption"]) for row in job.rows]
    yield TextFile(path="metadata.csv", data=csv_table(("file_name", "caption"), rows))
    yield TextFile(path="dataset_config.json", data=_config(job))


def _config(job: ExportJob) -> bytes:
    buckets = sorted({(row["frames"], *as_read.fitting_size(row["width"], row["height"])[::-1]) for row in job.rows})
    dataset = {
        "data_root": job.place("") if job.options.root != "." else ".",
        "dataset_type": "video",
        "id_token": None,
        "video_resolution_buckets": [list(bucket) for bucket in buckets],
        "reshape_mode": "bicubic",
        "remove_common_llm_caption_prefixes": False,
    }
    return json.dumps({"datasets": [dataset]}, indent=2).encode() + b"\n"


FINETRAINERS = Exporter(
    summary="clips and a metadata.csv (file_name, caption), with a dataset_config.json",
    entries=_entries,
    versions=(
        "finetrainers names no newest version of what it needs. Its video folders load with `datasets` 3.3 to 4 beside "
        "`pandas` 2 and with `datasets` 5.2 beside `pandas` 3. Older `datasets` beside `pandas` 3 refuses metadata.csv, and "
        "`datasets` 3.0 knows no video folders: pin `datasets>=3.3,<5` and `pandas<3`"
    ),
    usage=lambda job: f"pass --dataset_config {job.place('dataset_config.json')} to finetrainers, started in this folder",
    notes=as_read.notes,
)
