"""What the remote tests share: a copy of a remote to check, and work to kill in other processes."""

from __future__ import annotations

import os
from pathlib import Path

from versions_kill_ops import note
from versions_support import make_clips, origin, references, table

from generator.remotes.base import Remote, RemoteOptions, open_remote
from generator.versions.check import Damage, check
from generator.versions.commit import extend
from generator.versions.history.history import History
from generator.versions.sync.pull import pull
from generator.versions.sync.push import push


def copy_of(remote: Remote, folder: Path) -> History:
    """Copy all of a remote's files, as they are, into a folder; immutable ones that are there are not read again."""
    for part in ("objects", "records", "versions", "tags"):
        for path in remote.sizes(part):
            file = folder / ".stopdown" / path
            if part == "tags" or not file.exists():
                _write(file, remote.read(path))
    _write(folder / ".stopdown/head.json", remote.read("head.json"))
    return History(folder)


def damages(remote: Remote, folder: Path) -> list[Damage]:
    """Return what is wrong with a remote, apart from its lack of a working folder, and of a head before a first push ended."""
    copy_of(remote, folder)
    found = [damage for damage in check(History(folder)).damages if damage.kind != "working"]
    if remote.read("head.json") is None and not remote.sizes("tags"):
        return [damage for damage in found if damage.path != ".stopdown/head.json"]
    return found


def _write(file: Path, data: bytes | None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if data is not None:
        file.write_bytes(data)


def _credentials() -> None:
    """Set credentials for the storage server: a fork server that an earlier test started knows none."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ[name] = "testing"


def pushes(path: Path, where: str, options: RemoteOptions, notes: Path, seed: int) -> None:
    """Commit and push, again and again."""
    _credentials()
    history, remote = History(path), open_remote(where, options)
    for number in range(10**6):
        clips = make_clips(history.store, 4, seed=seed * 1000 + number, lossless=True)
        extend(history, table(clips), references(clips), origin(f"{seed} {number}"))
        history.tag("newest", move=True)
        note(notes, "pushing")
        push(history, remote)
        note(notes, f"pushed {history.version().id}")


def pulls(path: Path, where: str, options: RemoteOptions, notes: Path, seed: int) -> None:
    """Pull once, then note it again and again until killed."""
    _credentials()
    note(notes, f"pulling {seed}")
    report = pull(History(path), open_remote(where, options))
    note(notes, f"pulled {len(report.versions)}")


def more(history: History, seed: int, count: int = 3) -> str:
    clips = make_clips(history.store, count, seed=seed)
    return extend(history, table(clips), references(clips), origin(f"more {seed}")).id
