"""Committing what a person changed by hand: captions edited, clips deleted, rows of labels.parquet edited or removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from generator.card.card import dataset_card
from generator.card.facts import gather
from generator.card.files import LINEAGE_NAMES
from generator.card.origin import plan_origin
from generator.io.atomic import write_atomic
from generator.io.checksummed_json import sha256
from generator.io.disk_errors import reported
from generator.recipe.plan import Plan
from generator.store.label_check import label_faults
from generator.store.labels import LabelRows, labels_file, without_stale_parts
from generator.store.objects import ClipRecord
from generator.store.splits import SplitRatios
from generator.store.stored_plans import plan_recipe
from generator.truth.truth_names import FOLDER as TRUTH
from generator.truth.truth_names import is_truth
from generator.versions.commit import CommitOrigin, check_message, commit
from generator.versions.history.history import History
from generator.versions.history.version import Software, Version
from generator.versions.manifest.leaves import read_rows
from generator.versions.manifest.rows import RecordReference
from generator.versions.reading.dataset import Dataset
from generator.versions.working.compare import LABELS, Working, check_folders, labels_difference, tracked_files
from generator.versions.working.status import announce, record_shown, status
from scenes.errors import InputError

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What is known of the folder's clips before the commit: the version it shows, and rows by clip id."""

    version: Version | None
    rows: Mapping[str, Row]


@reported
def commit_folder(history: History, message: str, *, splits: SplitRatios | None = None) -> Version:
    """Commit the working folder as the next version.

    labels.parquet says which clips there are. A deleted .mp4 removes its clip, an edited .txt is its clip's new caption. Raises
    InputError where a video was changed, a file has no row, or a caption was edited in both places; then nothing is changed.
    """
    check_message(message)
    check_folders(history.path)
    working = Working(history)
    working.load_index()
    shown, restoring, _ = working.state()
    if restoring is not None:
        raise InputError(f"a restore of {restoring[:12]} was cut off; finish it with `stopdown restore {restoring[:12]}`")
    if _nothing_new(history, splits):
        return history.version()
    known = _known(history, shown)
    labels = _with_folder(history, working, _labels(history), known)
    plans = _plans(history, known.version)
    _check_labels(history, labels, plans)
    _renew_card(history, labels, plans, history.split_ratios() if splits is None else splits)
    origin = CommitOrigin(
        message=message,
        plans=plans,
        software=_software(history, known.version, plans, labels),
        files=_files(history, known.version),
        splits=splits,
        base=None if known.version is None else known.version.id,
    )

    def ready(version: Version) -> None:
        # Before the head moves: a kill in between leaves edits that the next commit makes the same version of.
        _align(history, labels)
        announce(history, version)

    version = commit(history, labels, _evidence(history, labels, known), origin, ready=ready)
    record_shown(history, version)
    working.save_index()
    return version


def _check_labels(history: History, labels: pa.Table, plans: list[str]) -> None:
    """Raise InputError for labels that are false, or none."""
    if not labels.num_rows:
        raise InputError(f"{history.path} shows no clip, and a version needs one; restore a version or build again")
    for fault in label_faults(labels, [plan_recipe(plan) for plan in plans]):
        raise InputError(f"{history.path / LABELS} cannot be committed: {fault}; restore the version, or build again")


def _nothing_new(history: History, splits: SplitRatios | None) -> bool:
    state = status(history)
    if not state.clean or state.version is None:
        return False
    return state.version.id == state.head and splits in (None, state.version.splits)


def _known(history: History, shown: str | None) -> _Known:
    version_id = shown or history.refs.head()
    if version_id is None:
        return _Known(version=None, rows={})
    version = history.load(version_id)
    rows = read_rows(
        history.store, history.manifest(version), ("clip_id", "scene_id", "caption", "key", "lossless", "sha256_bytes")
    )
    return _Known(version=version, rows={row["clip_id"]: row for row in rows.to_pylist()})


def _labels(history: History) -> pa.Table:
    path = history.path / LABELS
    if not path.is_file():
        raise InputError(f"{path} is missing, so there is nothing to commit; build the dataset or restore a version")
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read ({str(error).splitlines()[0]}); restore a version or build again") from None


def _with_folder(history: History, working: Working, labels: pa.Table, known: _Known) -> pa.Table:
    """Return the labels less deleted clips, with edited captions; raises InputError for what cannot be committed."""
    for name in ("clip_id", "sha256_bytes", "caption"):
        if name not in labels.column_names:
            raise InputError(f"{history.path / LABELS} has no column '{name}'; restore a version or build again")
    present = dict(tracked_files(history.path))
    ids, captions, stays = labels["clip_id"].to_pylist(), labels["caption"].to_pylist(), []
    for position, (clip_id, digest) in enumerate(zip(ids, labels["sha256_bytes"].to_pylist(), strict=True)):
        stays.append(f"clips/{clip_id}.mp4" in present)
        if stays[-1]:
            _check_video(history, working, clip_id, digest)
            captions[position] = _caption(history, clip_id, captions[position], known, present)
    named = set(ids) | known.rows.keys()  # the caption of a deleted clip may linger
    scenes = _scenes(labels) | {str(row["scene_id"]) for row in known.rows.values()}
    for relative in present:
        if _owner(relative) not in (scenes if relative.startswith(f"{TRUTH}/") else named):
            raise InputError(f"{history.path / relative} has no row in {LABELS}; add its row, or move the file away")
    index = labels.column_names.index("caption")
    labels = labels.set_column(index, labels.schema.field("caption"), pa.array(captions, pa.string()))
    labels = without_stale_parts(labels)
    return labels.filter(pa.array(stays, pa.bool_()))


def _check_video(history: History, working: Working, clip_id: str, digest: str) -> None:
    view, source = history.path / "clips" / f"{clip_id}.mp4", history.store.path(digest)
    if view.is_symlink():
        raise InputError(f"{view} is a symbolic link; put the file itself there, or restore the version")
    if source.exists() and view.samefile(source):
        return
    if working.digest(f"clips/{clip_id}.mp4") != digest:
        raise InputError(
            f"{view} was changed by hand, so its labels are no longer verified; restore it, or delete it to remove the clip"
        )


def _caption(history: History, clip_id: str, label: str, known: _Known, present: Mapping[str, object]) -> str:
    """Return a clip's caption: the one that was edited, in the .txt or in the table."""
    if f"clips/{clip_id}.txt" not in present:
        return label
    path = history.path / "clips" / f"{clip_id}.txt"
    if path.is_symlink():
        raise InputError(f"{path} is a symbolic link; put the caption itself there, or delete it to keep the one in {LABELS}")
    try:
        text = path.read_bytes().decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}); write the caption anew") from None
    before = known.rows[clip_id]["caption"] if clip_id in known.rows else label
    if text in (label, before):
        return label
    if label != before:
        raise InputError(f"the caption of {clip_id} was edited in {path.name} and in {LABELS}; make them equal")
    return text


def _owner(relative: str) -> str:
    """Return the id of the clip that a file of the folder belongs to, of the scene for a file of truth."""
    folder, name = relative.split("/")[:2]
    return name.rpartition(".")[0] if folder == "clips" else name


def _scenes(labels: pa.Table) -> set[str]:
    return set(labels["scene_id"].to_pylist()) if "scene_id" in labels.column_names else set()


def _evidence(history: History, labels: pa.Table, known: _Known) -> dict[str, RecordReference]:
    """Return what the store knows of every clip: from the version that the folder shows, else from records."""
    references: dict[str, RecordReference] = {}
    unknown: dict[str, str] = {}
    for clip_id, digest in zip(labels["clip_id"].to_pylist(), labels["sha256_bytes"].to_pylist(), strict=True):
        row = known.rows.get(clip_id)
        if row is not None and row["sha256_bytes"] == digest:
            references[clip_id] = RecordReference(key=str(row["key"]), lossless=dict(row["lossless"]))
        else:
            unknown[clip_id] = digest
    if unknown:
        # Of records with the same frames, one without truth and others with: the one that the folder shows.
        shown = sorted(_records(history), key=lambda record: _is_shown(history, record))
        records = {record.sha256_bytes: record for record in shown}
        references |= {clip_id: RecordReference.of(records[digest]) for clip_id, digest in unknown.items() if digest in records}
    return references


def _is_shown(history: History, record: ClipRecord) -> bool:
    """Return whether the truth that a record names, or its lack of any, is what the folder shows."""
    truth = (history.path / TRUTH).is_dir()
    return truth == any(is_truth(name) for name in record.frames)


def _records(history: History) -> list[ClipRecord]:
    paths = sorted((history.root / "records").glob("??/*.json"))
    return [record for path in paths if (record := history.store.record(path.stem)) is not None]


def _plans(history: History, version: Version | None) -> list[str]:
    """Return the folder's plan, or the plans of its version where it has none of its own."""
    path = history.root / "plan.json"
    if path.is_file():
        return [path.read_bytes().decode()]
    return [] if version is None else [history.store.read(plan).decode() for plan in version.plans]


def _software(history: History, version: Version | None, plans: list[str], labels: pa.Table) -> Software:
    """Return what made the clips: of an edited version, what made that; of a new build, what is here and in its records."""
    if version is not None and {sha256(plan.encode()) for plan in plans} <= set(version.plans):
        return version.software
    digests = set(labels["sha256_bytes"].to_pylist())
    return Software.here([record for record in _records(history) if record.sha256_bytes in digests])


def _renew_card(history: History, labels: pa.Table, plans: list[str], splits: SplitRatios) -> None:
    """Make a card that the build wrote say how the version is split; a card that a person edited stays as it is."""
    file = history.path / "README.md"
    if len(plans) != 1 or not file.is_file():
        return
    try:
        text, plan = file.read_text(encoding="utf-8"), Plan.from_json(plans[0])
    except (UnicodeDecodeError, ValidationError):  # no card of ours, or a plan that this program would not have written it for
        return

    def card(table: pa.Table, ratios: SplitRatios | None) -> str:
        facts = gather(plan.recipe.used_axes, LabelRows.of(table), ratios)
        return dataset_card(plan_origin(plan, splits=ratios), facts, license=plan.recipe.license)

    after = card(labels, splits)
    if text == after:
        return
    head = history.refs.head()
    if head is None:
        ours = text == card(labels, None)
    else:  # of what the build wrote just now, or of the version before clips were removed or captions edited
        shown = history.load(head)
        ours = text == card(labels, shown.splits) or text == card(Dataset(history, shown).labels, shown.splits)
    if ours:
        write_atomic(file, after.encode())


def _files(history: History, version: Version | None) -> dict[str, bytes]:
    names = set(LINEAGE_NAMES) if version is None else {*LINEAGE_NAMES, *version.files}
    return {name: (history.path / name).read_bytes() for name in sorted(names) if (history.path / name).is_file()}


def _align(history: History, labels: pa.Table) -> None:
    """Make the folder say once what was committed: captions in both places, no caption or frame of a removed clip."""
    kept, scenes = set(labels["clip_id"].to_pylist()), _scenes(labels)
    for relative in dict(tracked_files(history.path)):
        if _owner(relative) not in (scenes if relative.startswith(f"{TRUTH}/") else kept):
            (history.path / relative).unlink()
    for clip_id, caption in zip(labels["clip_id"].to_pylist(), labels["caption"].to_pylist(), strict=True):
        path, data = history.path / "clips" / f"{clip_id}.txt", f"{caption}\n".encode()
        if not path.is_file() or path.read_bytes() != data:
            write_atomic(path, data)
    if labels_difference(history.path, labels):
        write_atomic(history.path / LABELS, labels_file(labels))
