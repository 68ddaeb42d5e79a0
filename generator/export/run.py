"""One export from start to end: choose the clips, ask the format for its entries, write them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from generator.card.provenance import provenance
from generator.export import EXPORTS
from generator.export.base import Exporter, ExportJob, ExportOptions
from generator.export.files.entries import Entry, TextFile
from generator.export.files.marker import EXPORT_FORMAT, FORMAT_KEY, MARKER
from generator.export.files.text import parquet
from generator.export.source import STORAGE_COLUMNS, ExportSource, check_clip_ids
from generator.export.write_folder import Written, check_target, write_export
from generator.pairs.dataset_pairs import PAIR_KINDS, find_kind
from generator.store.labels import LabelRows
from scenes.errors import InputError, closest

ALL = "all"


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What an export did; `left_out` counts clips of splits that were not exported, by split; `usage` says how to read it,
    `notes` what its reader will not read as it is."""

    path: Path
    format: str
    clips: int
    written: Written
    left_out: dict[str, int]
    usage: str
    notes: tuple[str, ...] = ()


def export(source: ExportSource, format: str, out: Path, options: ExportOptions | None = None) -> ExportReport:
    """Export a source in a format into a folder, or go on where an earlier run was stopped.

    Raises InputError for an unknown format, preset or split, and for a folder with other content; DamagedError for a clip
    that does not match its label.
    """
    exporter = find_format(format)
    options = _settled(options or ExportOptions(), format, exporter)
    check_clip_ids(source.labels)
    table, left_out = choose(source, options)
    job = ExportJob(source, table, options)
    identity = _identity(job, format)
    check_target(out, identity, source)
    for _ in _all_entries(job, format, exporter):  # entries are pure: whatever cannot be written is refused before anything is
        pass
    written = write_export(out, identity, _all_entries(job, format, exporter), source, copy=options.copy)
    return ExportReport(
        path=out,
        format=format,
        clips=table.num_rows,
        written=written,
        left_out=left_out,
        usage=exporter.usage(job),
        notes=exporter.notes(job),
    )


def find_format(name: str) -> Exporter:
    """Return a format by name; raises InputError with the closest."""
    try:
        return EXPORTS[name]
    except KeyError:
        raise InputError(f"no export format '{name}'{closest(name, EXPORTS)}; formats: {', '.join(EXPORTS)}") from None


def _settled(options: ExportOptions, name: str, exporter: Exporter) -> ExportOptions:
    presets = exporter.presets or {}
    if options.preset is not None and not presets:
        able = ", ".join(format for format, other in EXPORTS.items() if other.presets)
        raise InputError(f"format '{name}' has no presets, received --preset {options.preset}; formats with presets: {able}")
    if options.preset is not None and options.preset not in presets:
        near = closest(options.preset, presets)
        raise InputError(f"format '{name}' has no preset '{options.preset}'{near}; presets: {', '.join(presets)}")
    if options.pairs is not None and not exporter.takes_pairs:
        able = ", ".join(format for format, other in EXPORTS.items() if other.takes_pairs)
        raise InputError(f"format '{name}' holds clips, not pairs, received --pairs {options.pairs}; formats of pairs: {able}")
    if exporter.takes_pairs:
        if options.pairs is None:
            raise InputError(f"format '{name}' needs --pairs KIND; kinds: {', '.join(PAIR_KINDS)}")
        find_kind(options.pairs)
    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit {options.limit} leaves nothing; give 1 or more")
    if not options.root or "\n" in options.root:
        raise InputError(f"--root {options.root!r} is not a path; give the export's folder as the trainer will see it, or `.`")
    split = options.split if options.split is not None else ALL if exporter.several_splits else None
    return replace(options, preset=options.preset if options.preset is not None else next(iter(presets), None), split=split)


def choose(source: ExportSource, options: ExportOptions) -> tuple[pa.Table, dict[str, int]]:
    """Return the label rows to export, and how many clips of which splits are left out.

    Without a choice a dataset with splits gives its train split: a format that holds one set must not mix test clips into it.
    Raises InputError for a dataset without clips and for a split that it does not have.
    """
    table, split = source.labels, options.split
    table = table.drop_columns([name for name in STORAGE_COLUMNS if name in table.column_names])
    if "split" not in table.column_names:
        if split not in (None, ALL):
            raise InputError(f"--split {split}: '{source.origin.name}' has no splits; leave --split out")
        counts: dict[str, int] = {}
    else:
        counts = {row["values"] or "train": row["counts"] for row in pc.value_counts(table["split"]).to_pylist()}
        wanted = split or "train"
        if wanted != ALL:
            if wanted not in counts:
                raise InputError(
                    f"--split {wanted}: '{source.origin.name}' has no such split{closest(wanted, counts)}; "
                    f"splits: {', '.join(sorted(counts))}, or all"
                )
            table = table.filter(pc.equal(pc.fill_null(table["split"], "train"), wanted))
        counts = {name: count for name, count in sorted(counts.items()) if wanted not in (ALL, name)}
    if table.num_rows == 0:
        raise InputError(f"'{source.origin.name}' has no clips to export")
    return table.slice(0, options.limit), counts


def _identity(job: ExportJob, format: str) -> dict[str, Any]:
    origin, options = job.source.origin, job.options
    return {
        FORMAT_KEY: EXPORT_FORMAT,
        "stopdown": origin.engine,
        "format": format,
        "dataset": origin.name,
        "source": origin.identity,
        "license": job.source.license,
        "options": {"preset": options.preset, "split": options.split, "limit": options.limit, "root": options.root}
        | ({"pairs": options.pairs} if options.pairs else {}),
        "labels_sha256": hashlib.sha256(repr(job.rows).encode()).hexdigest(),
    }


def _all_entries(job: ExportJob, format: str, exporter: Exporter) -> Iterator[Entry]:
    yield from exporter.entries(job)
    if not exporter.holds_labels:
        yield TextFile(path="labels.parquet", data=parquet(job.table))
    if not exporter.own_card:
        yield TextFile(path="README.md", data=_read_me(job, format, exporter).encode())
    chain = provenance(job.source.origin, LabelRows.of(job.table))
    yield TextFile(path="provenance.json", data=b"".join(chain))


def _read_me(job: ExportJob, format: str, exporter: Exporter) -> str:
    origin, options = job.source.origin, job.options
    chosen = [f"preset `{options.preset}` ({(exporter.presets or {})[options.preset]})"] if options.preset else []
    chosen += [f"pairs `{options.pairs}` ({PAIR_KINDS[options.pairs].summary})"] if options.pairs else []
    chosen += [f"split `{options.split}`"] if options.split not in (None, ALL) else []
    chosen += [f"the first {options.limit} clips"] if options.limit else []
    return "\n".join(
        [
            f"# {origin.name}, exported as {format}",
            "",
            f"{job.table.num_rows} clips of {len({row['scene_id'] for row in job.rows})} scenes, from `{origin.identity}`, "
            f"written by Stopdown {origin.engine}{': ' + ', '.join(chosen) if chosen else ''}.",
            "",
            "To read it:",
            "",
            f"    {exporter.usage(job)}",
            "",
            *(f"- {note}." for note in exporter.notes(job)),
            *([""] if exporter.notes(job) else []),
            *([f"{exporter.versions}.", ""] if exporter.versions else []),
            f"Licence: {job.source.license}." if job.source.license else "No licence was chosen by the owner of this dataset.",
            "",
            f"Every label is a physical quantity; `provenance.json` says how each clip came to be, `{MARKER}` lists every file",
            "with its sha256. A control is only in the data if the layout says so; otherwise the labels stand beside it.",
            "",
        ]
    )
