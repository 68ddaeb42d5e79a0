"""The label table of a dataset: one typed row per clip, with physical values, controls and what the probes measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from generator.recipe.label_proof import why_no_proof
from generator.recipe.plan import ClipPlan, Plan
from generator.store.objects import ClipRecord, ReadingRecord
from scenes.axes import AXES, Detection, Measurement, Reading

LABELS_FORMAT = 1
_GROUP_ROWS = 16_384  # in a row group of labels.parquet: what is held of it while it is written or read
_BATCH_ROWS = 1024

_COMMON = (
    ("clip_id", pa.string(), "identity of the clip, and its file name"),
    ("scene_id", pa.string(), "clips of one scene share content and differ in control only"),
    ("family", pa.string(), "scene family"),
    ("layer", pa.int32(), "control values per scene in this layer of the pyramid"),
    ("scene", pa.int32(), "number of the scene within its layer and frame count"),
    ("index", pa.int32(), "number of the clip within its scene"),
    ("frames", pa.int32(), "number of frames, 4n+1"),
    ("width", pa.int32(), "pixels"),
    ("height", pa.int32(), "pixels"),
    ("fps", pa.int32(), "frames per second"),
    ("seed", pa.int64(), "seed of the recipe"),
    ("fidelity", pa.string(), "flat, textured, lit or pbr"),
    ("caption", pa.string(), "text prompt; never names the effect unless the recipe asks for it"),
    ("sha256_bytes", pa.string(), "sha256 of the .mp4 file"),
    ("sha256_frames", pa.string(), "sha256 of the decoded frames"),
    ("size_bytes", pa.int64(), "size of the .mp4 file"),
)

PARTS = (
    ("caption_content", "what the clip holds, true of any of its frames; empty where the caption was edited"),
    ("caption_motion", "how its things move; empty where the caption was edited"),
)


def label_schema(axes: tuple[str, ...], *, two_parts: bool = False) -> pa.Schema:
    """Return the Arrow schema for a dataset with these axes, and with `two_parts` the columns of a caption's parts.

    Every field carries its meaning and unit as metadata.
    """
    fields = [pa.field(name, kind, nullable=False, metadata={"description": words}) for name, kind, words in _COMMON]
    if two_parts:
        fields += [pa.field(name, pa.string(), metadata={"description": words}) for name, words in PARTS]
    for name in axes:
        axis = AXES[name]
        unit = axis.error_unit
        fields += [
            pa.field(axis.column, pa.float64(), metadata={"description": f"label: physical value of {name}"}),
            pa.field(f"{name}_control", pa.float64(), metadata={"description": "label: normalised control, 0 neutral"}),
            pa.field(f"{name}_measured", pa.float64(), metadata={"description": "the probe's value, same unit as the label"}),
            pa.field(f"{name}_error", pa.float64(), metadata={"description": f"measured against labelled, in {unit}"}),
            pa.field(f"{name}_judged", pa.bool_(), metadata={"description": "effect large enough to be held to the bar"}),
            pa.field(f"{name}_confidence", pa.float64(), metadata={"description": "the probe's confidence, 0 to 1"}),
            pa.field(f"{name}_note", pa.string(), metadata={"description": "why the probe could not read, or was not judged"}),
        ]
    return pa.schema(fields, metadata={"stopdown_labels_format": str(LABELS_FORMAT)})


def label_table(plan: Plan, records: Mapping[str, ClipRecord]) -> pa.Table:
    """Return the label table of a plan whose clips are all rendered, in order of id; `records` are by clip id."""
    axes = plan.recipe.used_axes
    clips = sorted(plan.clips, key=lambda clip: clip.clip_id)
    rows = [label_row(plan, clip, records[clip.clip_id], axes) for clip in clips]
    return pa.Table.from_pylist(rows, schema=label_schema(axes, two_parts=plan.recipe.captions.two_parts))


def without_stale_parts(labels: pa.Table) -> pa.Table:
    """Return labels in which a caption that was edited has no parts any more."""
    names = [name for name, _ in PARTS]
    if not set(names) <= set(labels.column_names):
        return labels
    content, motion = (labels[name] for name in names)
    kept = pc.fill_null(pc.equal(pc.binary_join_element_wise(content, motion, " "), labels["caption"]), False)
    for name in names:
        index = labels.schema.get_field_index(name)
        labels = labels.set_column(index, labels.schema.field(name), pc.if_else(kept, labels[name], None))
    return labels


@dataclass(frozen=True, kw_only=True)
class LabelRows:
    """A label table that is gone through in tables of some rows, at least one, and as often as it takes."""

    schema: pa.Schema
    rows: int
    tables: Callable[[], Iterator[pa.Table]]

    @classmethod
    def of(cls, table: pa.Table) -> LabelRows:
        """Return the rows of a table that is held as a whole."""
        return cls(schema=table.schema, rows=table.num_rows, tables=lambda: iter([table]))


@dataclass(frozen=True, kw_only=True)
class StoredLabels(LabelRows):
    """A label table in a Parquet file; a row group of it is held at a time."""

    file: Path


def labels_file(labels: pa.Table) -> bytes:
    """Return the bytes of labels.parquet; pages carry checksums."""
    sink = pa.BufferOutputStream()
    _write(sink, labels.schema, [labels])
    return bytes(sink.getvalue().to_pybytes())


def write_labels(file: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> StoredLabels:
    """Write the same bytes of a table that comes in parts, and return its rows as they lie in the file."""
    rows = _write(file, schema, tables)
    return StoredLabels(schema=schema, rows=rows, tables=lambda: _stored(file, schema), file=file)


def _write(sink: Path | pa.BufferOutputStream, schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    rows = 0
    with pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True) as writer:
        for group in _groups(schema, tables):
            writer.write_table(group, row_group_size=_GROUP_ROWS)
            rows += group.num_rows
    return rows


def _groups(schema: pa.Schema, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield row groups: how rows come must not be seen in the bytes."""
    waiting, any_yet = schema.empty_table(), False
    for table in tables:
        waiting = pa.concat_tables([waiting, table])
        while waiting.num_rows >= _GROUP_ROWS:
            yield waiting.slice(0, _GROUP_ROWS).combine_chunks()
            waiting, any_yet = waiting.slice(_GROUP_ROWS), True
    if waiting.num_rows or not any_yet:
        yield waiting.combine_chunks()


def _stored(file: Path, schema: pa.Schema) -> Iterator[pa.Table]:
    with pq.ParquetFile(file) as stored:
        for batch in stored.iter_batches(_BATCH_ROWS, use_threads=False):
            yield pa.Table.from_arrays(batch.columns, schema=schema)
        if not stored.metadata.num_rows:
            yield schema.empty_table()


def label_row(plan: Plan, clip: ClipPlan, record: ClipRecord, axes: tuple[str, ...]) -> dict[str, Any]:
    """Return one row of the label table."""
    row: dict[str, Any] = {
        "clip_id": clip.clip_id,
        "scene_id": clip.scene_id,
        "family": clip.family,
        "layer": clip.layer,
        "scene": clip.scene,
        "index": clip.index,
        "frames": clip.frames,
        "width": plan.recipe.video.width,
        "height": plan.recipe.video.height,
        "fps": plan.recipe.video.fps,
        "seed": plan.seed,
        "fidelity": plan.recipe.render.fidelity,
        "caption": clip.caption,
        "sha256_bytes": record.sha256_bytes,
        "sha256_frames": record.sha256_frames,
        "size_bytes": record.size_bytes,
    }
    parts = plan.caption_parts(clip)
    if parts is not None:
        row |= {"caption_content": parts.content, "caption_motion": parts.motion}
    for name in axes:
        row |= _axis_columns(plan, clip, record, name)
    return row


def measure(plan: Plan, clip: ClipPlan, axis: str, reading: Reading) -> Measurement:
    """Hold a blind reading of one clip against the closed form of its scene."""
    measured = AXES[axis].measure(reading, plan.scene_by_id[clip.scene_id].spec, clip.optics, clip.values[axis])
    why = why_no_proof(plan, clip, axis)
    return replace(measured, judged=False, note=why) if why else measured


def reading_from_record(record: ReadingRecord) -> Reading:
    """Return the reading that a record holds; why nothing was read is kept in words only."""
    detections = tuple(
        Detection(x_px=detection.x_px, y_px=detection.y_px, size_px=detection.size_px) for detection in record.marks
    )
    return Reading(value=record.value, confidence=record.confidence, detections=detections, note=record.note)


def _axis_columns(plan: Plan, clip: ClipPlan, record: ClipRecord, name: str) -> dict[str, Any]:
    if name not in clip.axes:
        return {}
    measured = measure(plan, clip, name, reading_from_record(record.readings[name]))
    return {
        AXES[name].column: clip.values[name],
        f"{name}_control": clip.controls[name],
        f"{name}_measured": measured.measured,
        f"{name}_error": measured.error,
        f"{name}_judged": measured.judged,
        f"{name}_confidence": measured.confidence,
        f"{name}_note": measured.note,
    }
