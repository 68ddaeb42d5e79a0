"""Lance: one table with every label column and the clip's bytes in `video`. Needs the extra `lance`.

Rows and schema are the same every time; the library draws file names inside a table at random, so the bytes are not.
"""

from __future__ import annotations

import errno
import importlib.util
import itertools
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa

from generator.export.base import Exporter, ExportJob
from generator.export.files.entries import Entry, MadeFolder
from generator.export.write_folder import verified_bytes
from scenes.errors import InputError

ROWS_PER_BATCH = 64


def _entries(job: ExportJob) -> Iterator[Entry]:
    if importlib.util.find_spec("lance") is None:
        raise InputError(
            'the format lance needs the package pylance, which is not installed; run `pip install "stopdown[lance]"`'
        )
    yield MadeFolder(path=f"{job.source.origin.name}.lance", write=partial(_write, job))


def _write(job: ExportJob, target: Path) -> None:
    import lance

    schema = job.table.schema.append(pa.field("video", pa.large_binary(), nullable=False, metadata={"description": "the .mp4"}))
    reader = pa.RecordBatchReader.from_batches(schema, _batches(job, schema))
    try:
        table = lance.write_dataset(reader, str(target), mode="create")
        whole = _holds(table.scanner(batch_size=ROWS_PER_BATCH).to_reader(), _batches(job, schema))
    except (OSError, pa.ArrowException) as error:
        raise OSError(errno.EIO, f"Lance could not write it ({str(error).splitlines()[0][:120]})", str(target)) from error
    if not whole:
        raise OSError(errno.EIO, "what was written cannot be read again; look at the disk", str(target))


def _holds(found: Iterable[pa.RecordBatch], expected: Iterable[pa.RecordBatch]) -> bool:
    """Return whether a table that was written has the rows it was given: the library may not notice that a write failed."""
    pairs = itertools.zip_longest(_rows(found), _rows(expected))
    return all(one is not None and other is not None and one.equals(other) for one, other in pairs)


def _rows(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    return (batch.slice(number, 1) for batch in batches for number in range(batch.num_rows))


def _batches(job: ExportJob, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for start in range(0, job.table.num_rows, ROWS_PER_BATCH):
        part = job.table.slice(start, ROWS_PER_BATCH).combine_chunks()
        keys = zip(part["clip_id"].to_pylist(), part["sha256_bytes"].to_pylist(), strict=True)
        clips = [verified_bytes(job.source, clip_id, digest) for clip_id, digest in keys]
        columns = [column.combine_chunks() for column in part.columns]
        yield pa.RecordBatch.from_arrays([*columns, pa.array(clips, pa.large_binary())], schema=schema)


LANCE = Exporter(
    summary="one Lance table of labels and clip bytes (extra `lance`)",
    entries=_entries,
    usage=lambda job: f'lance.dataset("{job.place(job.source.origin.name)}.lance")',
    several_splits=True,
    holds_labels=True,
)
