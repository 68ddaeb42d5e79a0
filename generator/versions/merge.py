"""Union of two datasets: the other's version, with everything it reaches, is copied in, and a version of both is committed."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from generator.io.disk_errors import reported
from generator.versions.commit import CommitOrigin, commit_manifest
from generator.versions.history.history import History
from generator.versions.history.locks import writing
from generator.versions.history.transfer import import_versions
from generator.versions.history.version import Version
from generator.versions.manifest.leaves import conformed, edit, read_rows, unified
from generator.versions.manifest.rows import reading_columns
from generator.versions.manifest.summary import Summary
from generator.versions.reading.diff import row_changes
from scenes.errors import InputError

_SHOWN = 3


@reported
def merge(history: History, other: History, ref: str = "latest", message: str = "") -> Version:
    """Commit the union of a dataset's latest version and another dataset's version, which both become parents.

    Ids must be disjoint or equal: equal in every label but the probes' readings, of which ours stay. Raises InputError naming
    the clips that differ; then nothing is committed. The working folder stays as it is: restore the version to see it.
    """
    theirs, mine = other.version(ref), history.version("latest")
    if any(version.id == theirs.id for version in history.ancestors(mine.id)):
        return mine
    if theirs.splits != mine.splits:
        raise InputError(
            f"the datasets are split differently (train {mine.splits.train:g} here, {theirs.splits.train:g} there); "
            "commit one of them with the ratios of the other"
        )
    one, two = history.manifest(mine), other.manifest(theirs)
    schema = unified(one.schema, two.schema)
    ours, rows = conformed(read_rows(history.store, one), schema), conformed(read_rows(other.store, two), schema)
    fresh = rows.filter(pc.invert(pc.is_in(rows["clip_id"], ours["clip_id"].combine_chunks())))
    _refuse_conflicts(ours, rows)
    with writing(history.root):
        import_versions(other, history, theirs.id)
        manifest = edit(history.store, one, fresh.combine_chunks(), ())
        origin = CommitOrigin(
            message=message or f"merge {theirs.name} {theirs.short}",
            plans=[other.store.read(plan).decode() for plan in theirs.plans],
            software=theirs.software,
            files={"README.md": _card(mine, theirs, manifest.summary).encode()},
        )
        return commit_manifest(history, manifest, origin, expected=mine.id, parents=(theirs.id,))


def _refuse_conflicts(ours: pa.Table, theirs: pa.Table) -> None:
    common = pc.is_in(ours["clip_id"], theirs["clip_id"].combine_chunks())
    ours = ours.filter(common)
    theirs = theirs.filter(pc.is_in(theirs["clip_id"], ours["clip_id"].combine_chunks()))
    readings = reading_columns(ours.column_names)
    conflicts = [
        (change.clip_id, fields)
        for change in row_changes(ours, theirs)
        if (fields := [part.field for part in change.fields if part.field not in readings])
    ]
    if conflicts:
        shown = "; ".join(f"{clip_id} in {', '.join(fields)}" for clip_id, fields in conflicts[:_SHOWN])
        more = f" and {len(conflicts) - _SHOWN} more" if len(conflicts) > _SHOWN else ""
        raise InputError(
            f"the datasets differ in {len(conflicts)} clips of one id ({shown}{more}); merge datasets of other seeds"
        )


def _card(mine: Version, theirs: Version, summary: Summary) -> str:
    axes = "\n".join(f"- `{axis}`: {part.clips} clips" for axis, part in summary.axes.items())
    splits = ", ".join(f"{count} {split}" for split, count in summary.splits.items())
    return (
        f"# {mine.name} + {theirs.name}\n\n"
        f"The union of version `{mine.short}` ({mine.name}) and version `{theirs.short}` ({theirs.name}).\n\n"
        f"{summary.clips} clips of {summary.scenes} scenes ({splits}).\n\n{axes}\n\n"
        "`labels.parquet` has one row per clip; its schema carries the meaning of every column. "
        "`clips/` holds the videos and their captions.\n"
    )
