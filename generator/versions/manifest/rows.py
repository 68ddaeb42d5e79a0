"""The rows of a version: a clip's labels, and what the store needs to know of it (`key`, `lossless`, `split`).

A row table has every column of `generator.store.labels` and three more; it is sorted by `clip_id`, which is unique. Two hashes
stand for rows: an object's sha256 is that of its bytes; `content_digest` is that of the clips'
contents, whatever library wrote the bytes and whatever the probes read on a machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from generator.errors import DamagedError
from generator.store.label_check import label_faults
from generator.store.objects import ClipRecord
from generator.store.splits import SplitRatios, split_of
from scenes.errors import InputError

ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$"  # a clip id is a file name: no separators, no leading dot
HASH_PATTERN = r"^[0-9a-f]{64}$"
REQUIRED = ("clip_id", "scene_id", "caption", "sha256_bytes", "sha256_frames", "size_bytes")
READINGS = ("measured", "error", "judged", "confidence", "note")  # what probes said; no part of what a clip is

LOSSLESS = pa.map_(pa.string(), pa.string())
EXTRA = (
    pa.field("key", pa.string(), metadata={"description": "key of the clip's record in the store"}),
    pa.field("lossless", LOSSLESS, metadata={"description": "lossless frame files and the sha256 of each"}),
    pa.field("split", pa.string(), metadata={"description": "train, validation or test; by scene"}),
)
EXTRA_NAMES = tuple(field.name for field in EXTRA)


@dataclass(frozen=True, kw_only=True)
class RecordReference:
    """What the store knows of a clip: the key of its record, and its lossless frame files with their objects."""

    key: str
    lossless: Mapping[str, str]

    @classmethod
    def of(cls, record: ClipRecord) -> RecordReference:
        """Return the reference to a record."""
        return cls(key=record.key, lossless=record.frames)


class Evidences(Mapping[str, RecordReference]):
    """The record references, by clip id, made when it is asked for."""

    def __init__(self, records: Mapping[str, ClipRecord]) -> None:
        self._records = records

    def __getitem__(self, clip_id: str) -> RecordReference:
        return RecordReference.of(self._records[clip_id])

    def __contains__(self, clip_id: object) -> bool:
        return clip_id in self._records

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)


def axes_of(names: Sequence[str]) -> tuple[str, ...]:
    """Return the control axes among column names, in order: those with a `<axis>_control` column."""
    return tuple(name.removesuffix("_control") for name in names if name.endswith("_control"))


def reading_columns(names: Sequence[str]) -> frozenset[str]:
    """Return the columns among `names` that hold probe readings."""
    return frozenset(f"{axis}_{reading}" for axis in axes_of(names) for reading in READINGS)


def make_rows(labels: pa.Table, references: Mapping[str, RecordReference], splits: SplitRatios) -> pa.Table:
    """Return the rows of a label table, sorted and checked; `references` is by clip id. Raises InputError."""
    labels = labels.select([name for name in labels.column_names if name not in EXTRA_NAMES])
    for name in REQUIRED:
        if name not in labels.column_names:
            raise InputError(f"the label table has no column '{name}'; it needs {', '.join(REQUIRED)}")
    for fault in label_faults(labels):
        raise InputError(f"the labels cannot be committed: {fault}; restore the version, or build again")
    ids = labels["clip_id"].to_pylist()
    for clip_id in ids:
        if clip_id not in references:
            raise InputError(f"nothing in the store is known of clip '{clip_id}'; build it before committing it")
    split = {scene: split_of(scene, splits) for scene in set(labels["scene_id"].to_pylist())}
    known = ((one.key, sorted(one.lossless.items())) for one in map(references.__getitem__, ids))
    keys, lossless = zip(*known, strict=True) if ids else ((), ())
    columns = (
        pa.array(keys, pa.string()),
        pa.array(lossless, LOSSLESS),
        pa.array([split[scene] for scene in labels["scene_id"].to_pylist()], pa.string()),
    )
    for field, column in zip(EXTRA, columns, strict=True):
        labels = labels.append_column(field, column)
    return normalised(labels)


def labels_of(rows: pa.Table) -> pa.Table:
    """Return the label table of rows: the columns of `labels.parquet`."""
    return rows.select([name for name in rows.column_names if name not in EXTRA_NAMES])


def normalised(rows: pa.Table) -> pa.Table:
    """Return rows sorted by id, with plain column types and zeros under nulls; raises InputError for rows that cannot be."""
    rows = rows.combine_chunks()
    columns = [_plain(rows.schema.field(i), rows.column(i)) for i in range(rows.num_columns)]
    fields = [field.with_type(column.type) for field, column in zip(rows.schema, columns, strict=True)]
    rows = pa.table(columns, schema=pa.schema(fields, metadata=rows.schema.metadata))
    for name in ("sha256_bytes", "sha256_frames", "key"):
        _match(rows[name], HASH_PATTERN, f"a sha256 ({name})", InputError)
    _match(_flat(rows["lossless"], "items"), HASH_PATTERN, "a sha256 (lossless)", InputError)
    rows = rows.take(pc.sort_indices(rows["clip_id"])).combine_chunks()
    check_names(rows, InputError)
    return rows


def check_names(rows: pa.Table, failure: type[InputError] | type[DamagedError]) -> None:
    """Raise `failure` where ids are not unique and in order, or an id or a frame's name is unfit for a file name.

    Every row that is read passes here: a manifest from elsewhere must not name a path outside the dataset. Hashes are checked
    where they are used, by the store.
    """
    ids = rows["clip_id"]
    for names, words in ((ids, "a clip id (letters, digits, . _ -)"), (_flat(rows["lossless"], "keys"), "a frame file name")):
        if not all(_are_names(chunk) for chunk in names.chunks):
            _match(names, ID_PATTERN, words, failure)
    ascending = pc.less(ids[:-1], ids[1:]) if len(ids) > 1 else pa.chunked_array([[True]])
    if not pc.all(ascending).as_py():
        first = ids[pc.index(ascending, False).as_py()].as_py()
        raise failure(_out_of_order(first))


def check_follows(last: str | None, rows: pa.Table) -> None:
    """Raise InputError where rows do not follow the id that came before them."""
    if last is not None and rows.num_rows and rows["clip_id"][0].as_py() <= last:
        raise InputError(_out_of_order(rows["clip_id"][0].as_py()))


def _out_of_order(clip_id: str) -> str:
    return f"clip '{clip_id}' stands twice or out of order in the label table; give each clip one row"


def content_digest(rows: pa.Table) -> str:
    """Return the sha256 of what the rows say, readings apart: independent of column order and of Arrow's version."""
    digest = hashlib.sha256()
    skipped = reading_columns(rows.column_names)
    for name in sorted(rows.column_names):
        column = rows[name].combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
        if name in skipped or column.null_count == len(column):
            continue  # a column of nulls says as much as no column
        digest.update(f"{name}:{column.type}:{len(column)}:".encode())
        _feed(digest, column)
    return digest.hexdigest()


def _feed(digest: Any, column: pa.Array) -> None:
    if column.null_count:
        digest.update(np.packbits(column.is_valid().to_numpy(zero_copy_only=False)))
    if pa.types.is_map(column.type):
        lengths = np.diff(np.asarray(column.offsets))
        digest.update(np.ascontiguousarray(lengths, dtype="<i4"))
        _feed(digest, column.keys)
        _feed(digest, column.items)
    elif pa.types.is_string(column.type):
        column = column.fill_null("")
        digest.update(np.ascontiguousarray(pc.binary_length(column).to_numpy(), dtype="<i4"))
        digest.update("".join(column.to_pylist()).encode())
    else:
        zero = pa.scalar(0, pa.int8()).cast(column.type)
        values = column.fill_null(zero).to_numpy(zero_copy_only=False)
        digest.update(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")))


def _plain(field: pa.Field, column: pa.ChunkedArray) -> pa.Array:
    kind = field.type
    if pa.types.is_large_string(kind) or pa.types.is_dictionary(kind):
        column, kind = column.cast(pa.string()), pa.string()
    known = pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    if not known and kind != LOSSLESS:
        raise InputError(f"column '{field.name}' is {kind}; a label is text, a whole number, a number or true/false")
    array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], kind)
    if array.null_count == 0:
        return array
    if field.name in REQUIRED or field.name in EXTRA_NAMES:
        raise InputError(f"column '{field.name}' has an empty value; every clip needs one")
    zero = pa.scalar("" if kind == pa.string() else 0).cast(kind)
    return pc.if_else(array.is_valid(), array.fill_null(zero), pa.scalar(None, kind))


def _flat(column: pa.ChunkedArray, part: str) -> pa.ChunkedArray:
    return pa.chunked_array([getattr(chunk, part) for chunk in column.chunks], pa.string())


def _are_names(column: pa.Array) -> bool:
    """Return whether all match ID_PATTERN: five times faster over the raw bytes than by the regular expression."""
    if column.null_count or not pa.types.is_string(column.type):
        return False
    if not len(column):
        return True
    _, ends_buffer, text_buffer = column.buffers()
    ends = np.frombuffer(ends_buffer, np.int32)[column.offset : column.offset + len(column) + 1]
    lengths = np.diff(ends)
    if len(lengths) != len(column) or lengths.min() < 1 or lengths.max() > 200:
        return False
    text = np.frombuffer(text_buffer, np.uint8)
    if ends[0] < 0 or ends[-1] > len(text):  # a leaf from elsewhere may lie
        return False
    letters, digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", b"0123456789"
    if text[ends[0] : ends[-1]].tobytes().translate(None, letters + digits + b"._-"):
        return False
    return not text[ends[:-1]].tobytes().translate(None, letters + digits)


def _match(column: pa.ChunkedArray, pattern: str, words: str, failure: type[InputError] | type[DamagedError]) -> None:
    fits = pc.match_substring_regex(column, pattern)
    if len(column) and not pc.all(fits, skip_nulls=False).as_py():
        wrong = column.filter(pc.invert(fits.fill_null(False)))[0].as_py()
        raise failure(f"{wrong!r} is not {words}; nothing was done with it")
