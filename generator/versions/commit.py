"""Committing: rows become a version. Objects first, then the version's file, then the head by compare-and-swap.

A kill at any instant leaves either the version or objects that nothing names, which gc collects. A commit never looks at
pending records to decide what a version holds, so none that is replayed can bring a removed clip back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from generator.card.files import LINEAGE_NAMES
from generator.errors import ConflictError, DamagedError
from generator.io.disk_errors import reported
from generator.recipe.plan import Plan
from generator.store.labels import LabelRows, label_table
from generator.store.objects import ClipRecord, Store
from generator.store.splits import SplitRatios
from generator.store.stored_plans import PlanFile, plan_recipe
from generator.versions.history.history import History
from generator.versions.history.locks import writing
from generator.versions.history.version import Software, Version, content_id, machine_kind
from generator.versions.manifest.leaves import edit, store_rows, store_tables
from generator.versions.manifest.rows import Evidences, RecordReference, check_follows, make_rows, normalised
from generator.versions.manifest.tree import Manifest, write_manifest
from generator.versions.working.status import announce, record_shown
from scenes.errors import InputError

MESSAGE_LENGTH = 10_000
EPOCH = "SOURCE_DATE_EPOCH"
Ready = Callable[[Version], None]


@dataclass(frozen=True, kw_only=True)
class CommitOrigin:
    """What a commit says of itself beside the rows: plans (canonical JSON), software, files by name, message; bytes or where
    they lie.

    `splits` None keeps the ratios of the version before; `base` is the version that the rows were derived from, where that
    is not the head; `time` None is now, or what SOURCE_DATE_EPOCH says.
    """

    message: str
    plans: Sequence[str | PlanFile] = ()
    software: Software = field(default_factory=Software.here)
    files: Mapping[str, bytes | Path] = field(default_factory=dict)
    splits: SplitRatios | None = None
    base: str | None = None
    time: datetime | None = None


@reported
def commit(
    history: History,
    labels: pa.Table | LabelRows,
    references: Mapping[str, RecordReference],
    origin: CommitOrigin,
    *,
    ready: Ready | None = None,
) -> Version:
    """Commit a whole label table as the next version, or its rows in order of clip id; `references` is by clip id.

    Another process may commit meanwhile: this version then follows that one. Rows, plans and files equal to the head's make no
    new version. `ready` is called with the version before the head is moved to it, when nothing can refuse it any more, and
    with the head where there is nothing new. Raises InputError for rows that cannot be, DamagedError when an object they name
    is missing.
    """

    def build(head: Version | None) -> Manifest:
        rows = _rows(
            history, labels if isinstance(labels, LabelRows) else LabelRows.of(labels), references, _ratios(head, origin)
        )
        first = next(rows)
        return store_tables(history.store, first.schema, chain([first], rows))

    return _commit(history, build, origin, keep=False, ready=ready)


@reported
def commit_build(
    history: History, plan: Plan, records: Mapping[str, ClipRecord], message: str, *, splits: SplitRatios | None = None
) -> Version:
    """Commit a finished build: its plan, its records by clip id, and its folder, which then shows the version."""
    labels = LabelRows.of(label_table(plan, records))
    return commit_shown(history, labels, plan.to_json(), records, message, splits=splits)


@reported
def commit_shown(
    history: History,
    labels: LabelRows,
    plan: str | PlanFile,
    records: Mapping[str, ClipRecord],
    message: str,
    *,
    splits: SplitRatios | None = None,
) -> Version:
    """Commit what a folder shows: its labels, its plan, and the records of its clips by id."""
    origin = CommitOrigin(
        message=message,
        plans=(plan,),
        software=Software.here(records.values()),
        files={name: history.path / name for name in LINEAGE_NAMES},
        splits=splits,
    )
    version = commit(history, labels, Evidences(records), origin, ready=partial(announce, history))
    record_shown(history, version)
    return version


@reported
def extend(
    history: History,
    added: pa.Table | None,
    references: Mapping[str, RecordReference],
    origin: CommitOrigin,
    *,
    removed: Iterable[str] = (),
) -> Version:
    """Commit the head with clips put in, replaced or taken out, touching only the leaves where they are.

    Of several processes at once each adds to what the others committed. Ids to remove that are not there change nothing.
    Raises InputError where clips are to be removed and there is no version yet.
    """
    gone = tuple(removed)

    def build(head: Version | None) -> Manifest:
        rows = None if added is None else make_rows(added, references, _ratios(head, origin))
        if rows is not None:
            _check_objects(history, rows)
        if head is None:
            if rows is None:
                raise InputError(f"{history.path} has no version to remove clips from; commit one first")
            kept = rows.filter(pc.invert(pc.is_in(rows["clip_id"], pa.array(gone, pa.string()))))
            return store_rows(history.store, normalised(kept))
        return edit(history.store, history.manifest(head), rows, gone)

    return _commit(history, build, origin, keep=True)


@reported
def commit_manifest(
    history: History, manifest: Manifest, origin: CommitOrigin, *, expected: str, parents: tuple[str, ...]
) -> Version:
    """Commit a manifest on a head that must still be `expected`, with further parents; raises ConflictError if it moved."""
    with writing(history.root):
        version = _version(history, history.load(expected), manifest, origin, keep=True)
        version = version.model_copy(update={"parents": (expected, *parents)})
        history.save(version)
        history.refs.swap_head(expected, version.id)
    return version


def _commit(
    history: History,
    build: Callable[[Version | None], Manifest],
    origin: CommitOrigin,
    *,
    keep: bool,
    ready: Ready | None = None,
) -> Version:
    check_message(origin.message)
    with writing(history.root):
        while True:
            head_id = history.refs.head()
            head = None if head_id is None else history.load(head_id)
            version = _version(history, head, build(head), origin, keep=keep)
            same = head is not None and _says_the_same(version, head)
            version = head if head is not None and same else version
            if not same:
                history.save(version)
            if ready is not None:
                ready(version)
            if same:
                return version
            try:
                history.refs.swap_head(head_id, version.id)
            except ConflictError:
                continue
            return version


def _version(history: History, head: Version | None, manifest: Manifest, origin: CommitOrigin, *, keep: bool) -> Version:
    """Write what a version names and return it, not yet saved; `keep` adds to the head's plans, software and files."""
    store = history.store
    plans = [_put(store, plan.path if isinstance(plan, PlanFile) else plan.encode()) for plan in origin.plans]
    recipes: list[dict[str, Any]] = [
        dict(plan.recipe) if isinstance(plan, PlanFile) else plan_recipe(plan) for plan in origin.plans
    ]
    files = {name: _put(store, data) for name, data in origin.files.items()}
    software = origin.software
    if keep and head is not None:
        fresh = [(digest, recipe) for digest, recipe in zip(plans, recipes, strict=True) if digest not in head.plans]
        plans = [*head.plans, *(digest for digest, _ in fresh)]
        recipes = [*head.recipes, *(recipe for _, recipe in fresh)]
        files, software = {**head.files, **files}, software.joined(head.software)
    splits = _ratios(head, origin)
    parents = () if head is None else (head.id,)
    if head is not None and origin.base not in (None, head.id):
        parents = (*parents, str(origin.base))
    return Version(
        parents=parents,
        content=content_id(manifest, plans, software, splits),
        manifest=write_manifest(store, manifest),
        plans=tuple(plans),
        recipes=tuple(recipes),
        software=software,
        splits=splits,
        summary=manifest.summary,
        files=files,
        machine=machine_kind(),
        time=(origin.time or _now()).astimezone(UTC).isoformat(timespec="seconds"),
        message=origin.message,
    )


def _put(store: Store, data: bytes | Path) -> str:
    return store.put_file(data) if isinstance(data, Path) else store.put(data)


def _now() -> datetime:
    """Return the time, or what SOURCE_DATE_EPOCH says it is: then the same clips make the same id (reproducible-builds.org)."""
    fixed = os.environ.get(EPOCH)
    if not fixed:
        return datetime.now(UTC)
    try:
        return datetime.fromtimestamp(int(fixed), UTC)
    except (ValueError, OverflowError, OSError):
        raise InputError(f"{EPOCH}={fixed} is no time; give whole seconds since 1970, or unset it") from None


def _ratios(head: Version | None, origin: CommitOrigin) -> SplitRatios:
    if origin.splits is not None:
        return origin.splits
    return SplitRatios() if head is None else head.splits


def _says_the_same(version: Version, head: Version) -> bool:
    return (version.manifest, version.content, version.files) == (head.manifest, head.content, head.files)


def _rows(
    history: History, labels: LabelRows, references: Mapping[str, RecordReference], splits: SplitRatios
) -> Iterator[pa.Table]:
    """Yield the rows of labels, checked; raises InputError for rows that cannot be, DamagedError for a missing object."""
    last: str | None = None
    for table in labels.tables():
        rows = make_rows(table, references, splits)
        check_follows(last, rows)
        _check_objects(history, rows)
        last = rows["clip_id"][-1].as_py() if rows.num_rows else last
        yield rows


def _check_objects(history: History, rows: pa.Table) -> None:
    """Raise DamagedError when an object that rows name is not in the store."""
    checked: set[str] = set()
    columns = (rows[name].to_pylist() for name in ("clip_id", "sha256_bytes", "lossless"))
    for clip_id, digest, lossless in zip(*columns, strict=True):
        for wanted in (digest, *(frame for _, frame in lossless)):
            if wanted not in checked and not history.store.has(wanted):
                raise DamagedError(
                    f"clip {clip_id}: object {wanted[:12]} is not in the store; build it again before committing"
                )
            checked.add(wanted)


def check_message(message: str) -> None:
    """Raise InputError for what cannot be a version's message."""
    if not message.strip():
        raise InputError("a version needs a message that says what it is; give one with --message")
    if len(message) > MESSAGE_LENGTH or "\0" in message or "\r" in message:
        raise InputError(f"the message has {len(message)} characters; give plain text of at most {MESSAGE_LENGTH}")
