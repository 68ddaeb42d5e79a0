"""Restoring: the working folder becomes exactly a version. What is in no version is never overwritten unless forced.

A note of the target is written first and removed last, so that a restore that was cut off is known, and the next one finishes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from generator.errors import DamagedError
from generator.io.atomic import file_digest, fsync_folder, write_atomic, write_temporary
from generator.io.checksummed_json import sha256
from generator.io.disk_errors import reported
from generator.store.labels import labels_file
from generator.truth.truth_names import FOLDER as TRUTH
from generator.versions.history.history import History
from generator.versions.history.locks import writing
from generator.versions.history.version import Version
from generator.versions.working.compare import (
    FOLDERS,
    LABELS,
    Difference,
    RestoreTarget,
    Working,
    check_folders,
    differences,
    labels_difference,
    target_of,
    tracked_files,
)
from generator.versions.working.working_folder import build_lock
from scenes.errors import InputError

_SHOWN = 3
_WRITERS = 16


@dataclass(frozen=True, kw_only=True)
class RestoreReport:
    """What a restore did: files written or linked, files removed, uncommitted files that `force` overwrote or removed."""

    version: Version
    written: int
    removed: int
    lost: tuple[Difference, ...]


@reported
def restore(history: History, ref: str, *, force: bool = False) -> RestoreReport:
    """Make the working folder show a version: views, captions, labels.parquet, generated files, plan.

    Raises InputError when that would lose work that is in no version and `force` is not set, or while a build is running;
    DamagedError when an object of the version is missing. Nothing is changed in either case.
    """
    check_folders(history.path)
    with build_lock(history.path), writing(history.root):
        version = history.version(ref)
        target = target_of(history, version)
        _check_objects(history, target)
        working = Working(history)
        working.load_index()
        shown, restoring, labels = working.state()
        lost = _uncommitted(history, working, shown, [shown, restoring, history.refs.head(), version.id], labels)
        lost += _other_plan(history)
        if lost and not force:
            raise InputError(_refusal(lost, version))
        working.remember(shown, restoring=version.id, labels=labels)
        stale = _generated(history, (shown, restoring)) - target.objects.keys()
        written, removed = _show(history, target, working, stale)
        _show_plan(history, version)
        labels_digest = _show_labels(history, target)
        working.remember(version.id, labels=labels_digest)
        working.save_index()
    return RestoreReport(version=version, written=written, removed=removed, lost=lost)


def _uncommitted(
    history: History, working: Working, shown: str | None, known: Iterable[str | None], labels: str | None
) -> tuple[Difference, ...]:
    """Return the files of the folder that hold what none of the known versions holds."""
    remaining: dict[str, Difference] | None = None
    for version_id in dict.fromkeys(known):
        if version_id is None:
            continue
        target = target_of(history, history.load(version_id))
        digest = labels if version_id == shown else None
        found = {d.path: d for d in differences(history, target, working, labels_digest=digest) if d.kind != "missing"}
        if LABELS in found and not labels_difference(history.path, target.labels):
            del found[LABELS]  # other bytes of the same rows are no work to lose
        remaining = found if remaining is None else {path: remaining[path] for path in remaining.keys() & found.keys()}
    return tuple(sorted((remaining or {}).values(), key=lambda difference: difference.path))


def _other_plan(history: History) -> tuple[Difference, ...]:
    path = history.root / "plan.json"
    plans = {plan for version in history.reached().values() for plan in version.plans}
    if not path.is_file() or sha256(path.read_bytes()) in plans:
        return ()
    detail = "is the plan of a build that is not committed"
    return (Difference(path=".stopdown/plan.json", kind="changed", detail=detail),)


def _refusal(lost: tuple[Difference, ...], version: Version) -> str:
    shown = "; ".join(f"{difference.path} {difference.detail}" for difference in lost[:_SHOWN])
    more = f" and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
    return (
        f"restoring {version.short} would lose {len(lost)} uncommitted {'change' if len(lost) == 1 else 'changes'} "
        f"({shown}{more}); commit them, or restore with --force to lose them"
    )


def _check_objects(history: History, target: RestoreTarget) -> None:
    for relative, digest in target.objects.items():
        if not history.store.has(digest):
            raise DamagedError(f"object {digest[:12]} of {relative} is missing; run `stopdown verify` to see what it touches")


def _generated(history: History, version_ids: Iterable[str | None]) -> set[str]:
    """Return the names of the generated files of versions."""
    return {name for version_id in version_ids if version_id is not None for name in history.load(version_id).files}


def _show(history: History, target: RestoreTarget, working: Working, stale: set[str]) -> tuple[int, int]:
    """Link objects, write captions, remove what is not of the version; return how many were written and removed."""
    present = dict(tracked_files(history.path))
    removed = 0
    for relative in sorted(present.keys() - target.paths):
        (history.path / relative).unlink()
        removed += 1
    for name in stale:
        (history.path / name).unlink(missing_ok=True)
    written = 0
    for relative, digest in target.objects.items():
        path = history.path / relative
        source = history.store.path(digest)
        if path.is_symlink() or path.is_dir():
            _clear(path)
        if path.exists() and (path.samefile(source) or working.digest(relative) == digest):
            continue
        history.store.link(digest, path)
        written += 1
    written += _show_captions(history, target, working, present)
    _remove_empty_folders(history.path)
    for name in FOLDERS:
        if (history.path / name).is_dir():
            fsync_folder(history.path / name)
    return written, removed


def _show_captions(history: History, target: RestoreTarget, working: Working, present: Mapping[str, os.DirEntry[str]]) -> int:
    def holds(relative: str, text: bytes) -> bool:
        entry = present.get(relative)
        if entry is None or entry.is_symlink() or entry.stat().st_size != len(text):
            return False
        return working.digest(relative) == sha256(text)

    stale = [(history.path / relative, text) for relative, text in target.captions.items() if not holds(relative, text)]
    with ThreadPoolExecutor(_WRITERS) as pool:  # a disk flushes many small files together
        list(pool.map(lambda pair: _write_caption(*pair), stale))
    return len(stale)


def _clear(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    else:
        raise InputError(f"{path} is a folder where a file of the version belongs; move it away")


def _write_caption(path: Path, data: bytes) -> None:
    """Write a file durably; the folder's entries are flushed once, after all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = write_temporary(path.parent, data, mode=0o666)
    try:
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _remove_empty_folders(path: Path) -> None:
    for folder in (path / "frames", path / TRUTH):
        for inner in (*folder.glob("*/*"), *folder.glob("*"), folder):
            if inner.is_dir():
                with contextlib.suppress(OSError):  # it is not empty
                    inner.rmdir()


def _show_labels(history: History, target: RestoreTarget) -> str:
    """Write labels.parquet where it does not say what the version says; return its sha256."""
    path = history.path / LABELS
    if path.is_symlink():
        path.unlink()
    if labels_difference(history.path, target.labels):
        write_atomic(path, labels_file(target.labels))
    return file_digest(path)


def _show_plan(history: History, version: Version) -> None:
    """Put the version's plan in place; a version of several plans or none has no plan that a build could go on with."""
    path = history.root / "plan.json"
    if len(version.plans) == 1:
        data = history.store.read(version.plans[0])
        if not path.is_file() or path.read_bytes() != data:
            write_atomic(path, data)
    else:
        path.unlink(missing_ok=True)
