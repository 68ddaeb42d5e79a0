"""Repairing from a remote: what a check found damaged or missing is fetched again, verified, and put in its place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from generator.errors import DamagedError
from generator.io.atomic import write_atomic
from generator.io.checksummed_json import parse_checksummed
from generator.io.disk_errors import reported
from generator.remotes.base import Remote, object_file, record_file, version_file
from generator.store.objects import Store
from generator.versions.check import CheckReport, Damage, Progress, check
from generator.versions.history.history import INTERNAL, History
from generator.versions.history.locks import writing
from generator.versions.sync.pull import fetched
from generator.versions.working.compare import tracked_files
from scenes.errors import StopdownError

_OBJECT = re.compile(r"\.stopdown/objects/[0-9a-f]{2}/([0-9a-f]{64})")
_RECORD = re.compile(r"\.stopdown/records/[0-9a-f]{2}/([0-9a-f]{64})\.json")
_VERSION = re.compile(r"\.stopdown/versions/([0-9a-f]{64})\.json")


@dataclass(frozen=True, kw_only=True)
class RepairReport:
    """What was put right (paths relative to the dataset), and what a remote cannot put right, with the reason."""

    repaired: tuple[str, ...]
    left: tuple[Damage, ...]


@reported
def repair(history: History, report: CheckReport, remote: Remote) -> RepairReport:
    """Fetch the damaged and missing objects and versions that a check names; the remote's bytes must match their sha256.

    Views that shared the bytes of a damaged object are linked anew; other files of the folder are left alone. A manifest that
    was missing hides what it names: check again and repair again until nothing more is found, or use `repair_all`.
    """
    remote.check()
    repaired: list[str] = []
    left: list[Damage] = []
    with writing(history.root):
        for damage in report.damages:
            try:
                done = _repair(history, damage, remote)
            except StopdownError as error:
                left.append(_with_reason(damage, str(error)))
                continue
            if done:
                repaired.append(damage.path)
            elif done is None:
                left.append(_with_reason(damage, "no remote can say what belongs there"))
    return RepairReport(repaired=tuple(dict.fromkeys(repaired)), left=tuple(left))


def repair_all(
    history: History, remote: Remote, refs: Sequence[str] | None = None, *, progress: Progress | None = None
) -> tuple[RepairReport, CheckReport]:
    """Check and repair in turns until nothing more can be repaired; return what was done and the last check."""
    repaired: dict[str, None] = {}
    while True:
        report = check(history, refs, progress=progress)
        result = repair(history, report, remote)
        fresh = [path for path in result.repaired if path not in repaired]
        repaired.update(dict.fromkeys(fresh))
        if not fresh:
            return RepairReport(repaired=tuple(repaired), left=result.left), report


def _repair(history: History, damage: Damage, remote: Remote) -> bool | None:
    """Return whether a file was replaced; None for what no remote can know."""
    found = _OBJECT.fullmatch(damage.path)
    if found:
        digest = found[1]
        data = fetched(remote, object_file(digest), digest)
        path = history.store.path(digest)
        views = _views(history, path)
        _replace(history, path, data)
        store = Store(history.root)
        for view in views:
            store.link(digest, view)
        return True
    found = _VERSION.fullmatch(damage.path)
    if found:
        _replace(history, history.version_path(found[1]), fetched(remote, version_file(found[1]), found[1]))
        return True
    found = _RECORD.fullmatch(damage.path)
    if found and damage.versions:  # one that a version's clip needs; any other is of a build that is not committed
        _replace(history, history.root / record_file(found[1]), _record(remote, found[1]))
        return True
    return None


def _record(remote: Remote, key: str) -> bytes:
    """Return a clip's record, verified by its checksum; raises DamagedError."""
    data = remote.read(record_file(key))
    if data is None:
        raise DamagedError(f"{record_file(key)} is missing from {remote.name} too")
    if parse_checksummed(data, record_file(key)).get("key") != key:
        raise DamagedError(f"{record_file(key)} at {remote.name} belongs to another clip")
    return data


def _replace(history: History, path: Path, data: bytes) -> None:
    """Write verified bytes in the place of a file; raises DamagedError where a link would lead elsewhere."""
    for folder in (path.parent, path.parent.parent, history.root):
        if folder.is_symlink():
            raise DamagedError(f"{folder} is a symbolic link where a folder of {INTERNAL} belongs; remove it")
    write_atomic(path, data, mode=0o444)


def _views(history: History, path: Path) -> list[Path]:
    """Return the files of the folder that are the same file as an object: its hard links."""
    if not path.is_file() or path.is_symlink():
        return []
    status = path.stat()
    if status.st_nlink < 2:
        return []
    views = [history.path / relative for relative, _ in tracked_files(history.path)]
    views += [entry for entry in history.path.iterdir() if entry.is_file() and not entry.is_symlink()]
    return [view for view in views if not view.is_symlink() and view.is_file() and view.samefile(path)]


def _with_reason(damage: Damage, reason: str) -> Damage:
    message = f"{damage.message} (not repaired: {reason})"
    return Damage(kind=damage.kind, path=damage.path, message=message, clips=damage.clips, versions=damage.versions)
