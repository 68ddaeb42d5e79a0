"""Hugging Face VideoFolder: per split a folder of clips and its metadata.parquet with every label; a dataset card on top.

`load_dataset(dir)` on a folder with .txt files quietly loads the text, so captions are in the metadata only, and the card names
the files of every split. Parquet, not CSV: the types and the meaning of every column survive, also where a column is all empty.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from generator.card.card import HubConfig, dataset_card
from generator.card.croissant import ClipSet, LabelFile, croissant
from generator.card.facts import gather
from generator.export.base import Exporter, ExportJob, clip_file
from generator.export.files.entries import Entry, TextFile
from generator.export.files.text import parquet
from generator.store.labels import LabelRows

METADATA = "metadata.parquet"
_READING = (
    "`datasets.load_dataset` on this folder gives every clip with its caption and labels, by split. It needs `datasets` 3.4 or "
    "later: 3.3 loads the videos and leaves captions and labels out without a word, 3.0 knows no video folders. Videos come as "
    "bytes with `Video(decode=False)`; decoding them needs torchcodec."
)


def _entries(job: ExportJob) -> Iterator[Entry]:
    labels: list[LabelFile] = []
    for split, rows in job.splits.items():
        for row in rows:
            yield clip_file(row, split)
        table = _of_split(job, split)
        names = pa.array([f"{clip_id}.mp4" for clip_id in table["clip_id"].to_pylist()], pa.string())
        data = parquet(table.add_column(0, pa.field("file_name", pa.string(), nullable=False), names))
        yield TextFile(path=f"{split}/{METADATA}", data=data)
        labels.append(LabelFile(path=f"{split}/{METADATA}", sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data)))
    config = HubConfig(
        name="default",
        data_files={split: (f"{split}/*.mp4", f"{split}/{METADATA}") for split in job.splits},
        options={"drop_labels": True},
    )
    labelled = LabelRows.of(job.table)
    facts = gather(job.source.origin.axes, labelled)
    card = dataset_card(job.source.origin, facts, license=job.source.license, configs=(config,), reading=_READING)
    yield TextFile(path="README.md", data=card.encode())
    clips = ClipSet(globs=tuple(f"{split}/*.mp4" for split in job.splits), folder_of=lambda row: row.get("split") or "train")
    metadata = croissant(job.source.origin, facts, labelled, license=job.source.license, labels=labels, clips=clips)
    yield TextFile(path="croissant.json", data=b"".join(metadata))


def _of_split(job: ExportJob, split: str) -> pa.Table:
    if "split" not in job.table.column_names:
        return job.table
    return job.table.filter(pc.equal(pc.fill_null(job.table["split"], "train"), split))


VIDEOFOLDER = Exporter(
    summary="Hugging Face VideoFolder with card, croissant.json and all labels, by split",
    entries=_entries,
    usage=lambda job: f'datasets.load_dataset("{job.options.root}")',
    several_splits=True,
    holds_labels=True,
    own_card=True,
)
