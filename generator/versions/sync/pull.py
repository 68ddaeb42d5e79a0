"""Pulling and cloning: what is only on the remote is fetched and verified; then references move, then the folder shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from generator.errors import DamagedError, RemoteError
from generator.io.atomic import write_atomic
from generator.io.checksummed_json import parse_checksummed, sha256
from generator.io.disk_errors import reported
from generator.remotes.base import Remote, object_file, record_file, same_folder
from generator.remotes.folder import FolderRemote
from generator.store.objects import ClipRecord
from generator.truth.truth_names import frame_files, truth_files
from generator.versions.history.history import INTERNAL, History
from generator.versions.history.locks import writing
from generator.versions.history.version import Version
from generator.versions.manifest.leaves import read_leaf
from generator.versions.sync.compare_refs import HEAD, Ancestry, Move, RemoteRef, either, local_refs, moves, remote_refs
from generator.versions.sync.push import THREADS, Parcel, Progress, TransferReport, flowing, parent_leaves
from generator.versions.working.compare import check_folders
from generator.versions.working.restore import restore
from generator.versions.working.status import status
from scenes.errors import InputError

_SHOWN = 3


@reported
def pull(
    history: History, remote: Remote, *, force: bool = False, show: bool = True, progress: Progress | None = None
) -> TransferReport:
    """Fetch all that a remote's head and tags reach, move our references to its, and make the folder show the latest version.

    Every byte is verified by its sha256 before it is kept. Raises InputError when the remote is none, the histories have
    diverged, or the folder holds uncommitted work (and `force` is not set); DamagedError when what comes is damaged. Then no
    reference was moved and the folder is as it was. `show` False leaves the folder alone.
    """
    check_folders(history.path)
    if isinstance(remote, FolderRemote) and same_folder(history.path, remote.path):
        raise InputError(f"{remote.name} is the dataset itself; give another folder")
    theirs = _refs_of(remote)
    with remote.reading(), writing(history.root):
        mine = local_refs(history)
        ancestry = Ancestry(either(history, remote))
        wanted = {name: ref.version for name, ref in theirs.items()}
        advice = "push or merge first, or pull with --force to move it"
        moving = moves(mine, wanted, ancestry, force=force, where=str(history.path), advice=advice)
        if show and not force and any(move.name == HEAD for move in moving):
            _refuse_uncommitted(history)
        new = [v for v in ancestry.oldest_first(wanted.values()) if not history.version_path(v.id).is_file()]
        objects, size_bytes = _fetch(history, remote, new, progress)
        for move in moving:
            _move(history, move)
    if show:
        _show(history, moving, force=force)
    return TransferReport(versions=tuple(v.id for v in new), objects=objects, size_bytes=size_bytes, moves=tuple(moving))


def clone(remote: Remote, folder: Path, *, show: bool = True, progress: Progress | None = None) -> TransferReport:
    """Make a folder that holds a remote's whole history and shows its latest version; a clone that was cut off goes on.

    Raises InputError when the folder holds something, or the remote is none or has no version; then nothing is written.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{folder} is no folder; give one that does not exist yet, or an empty one")
    history = History(folder)
    if folder.is_dir() and any(folder.iterdir()):
        if not history.root.is_dir():
            raise InputError(f"{folder} is not empty; give a folder that does not exist yet, or an empty one")
        if history.refs.head() is not None and not status(history).restoring and _has_files(folder):
            raise InputError(f"{folder} is a dataset already; `stopdown pull` brings it up to date")
    if not folder.parent.is_dir():
        raise InputError(f"{folder.parent} does not exist, so {folder.name} cannot be made in it; make it first")
    if HEAD not in _refs_of(remote):
        raise RemoteError(f"{remote.name} has no version to clone; push one there first")
    try:
        history.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}); give a folder that can be written to") from error
    return pull(history, remote, show=show, progress=progress)


def fetched(remote: Remote, path: str, digest: str) -> bytes:
    """Return a remote file's bytes, verified by their sha256; raises DamagedError."""
    data = remote.read(path)
    if data is None:
        raise DamagedError(f"{path} is missing from {remote.name}; push it there again from a whole copy")
    if sha256(data) != digest:
        raise DamagedError(f"{path} at {remote.name} does not match its sha256; remove it there and push it again")
    return data


def _refs_of(remote: Remote) -> dict[str, RemoteRef]:
    remote.check()
    refs = remote_refs(remote)
    if not refs:
        raise RemoteError(f"{remote.name} has no version yet (a push may be under way); push one there first")
    return refs


def _refuse_uncommitted(history: History) -> None:
    state = status(history)
    changed = [difference for difference in state.differences if difference.kind != "missing"]
    if state.version is None or state.restoring is not None or not changed:
        return
    shown = "; ".join(f"{difference.path} {difference.detail}" for difference in changed[:_SHOWN])
    raise InputError(
        f"{history.path} has {len(changed)} uncommitted changes ({shown}); commit them first, "
        "or pull with --no-restore to leave the folder alone or --force to lose them"
    )


def _fetch(history: History, remote: Remote, versions: list[Version], progress: Progress | None) -> tuple[int, int]:
    """Fetch versions, parents before children, each only after all it names; return how many objects came, and their bytes."""
    count = size_bytes = done = total = 0

    def bring(digest: str) -> int:
        if history.store.has(digest):
            return -1
        data = fetched(remote, object_file(digest), digest)
        history.store.put(data)
        return len(data)

    with ThreadPoolExecutor(THREADS) as pool:

        def run(step: Callable[[str], int], names: Iterable[str]) -> None:
            nonlocal count, size_bytes, done
            for size in flowing(pool, step, names):
                done += 1
                count, size_bytes = count + (size >= 0), size_bytes + max(size, 0)
                if progress is not None:
                    progress(done, max(done, total))

        for version in versions:
            run(bring, (version.manifest,))
            known, manifest = parent_leaves(history, version), history.manifest(version)
            run(bring, (branch.digest for branch in manifest.branches if branch.digest not in known))
            run(bring, (leaf.digest for leaf in manifest.each_leaf(known)))
            parcel = Parcel(history=history, version=version, manifest=manifest, known=known)
            total = done + sum(1 for _ in parcel.objects) + sum(1 for _ in parcel.keys)
            run(bring, parcel.objects)
            _fetch_records(history, remote, version, known, run)
            history.save(version)
    return count, size_bytes


def _fetch_records(
    history: History,
    remote: Remote,
    version: Version,
    known: set[str],
    run: Callable[[Callable[[str], int], Iterable[str]], None],
) -> None:
    """Fetch the records of a version's clips, so that a build here finds them finished; each must say what its row says."""
    manifest = history.manifest(version)
    names = ("clip_id", "key", "sha256_bytes", "sha256_frames", "size_bytes", "lossless")
    for leaf in manifest.each_leaf(known):
        rows = {row["key"]: row for row in read_leaf(history.store, leaf, manifest.schema, names).to_pylist()}

        def bring(key: str, rows: Mapping[str, dict[str, object]] = rows) -> int:
            path = history.root / record_file(key)
            data = None if path.exists() else remote.read(record_file(key))
            if data is not None:
                _check_record(remote, data, rows[key])
                write_atomic(path, data, mode=0o444)
            return -1

        run(bring, rows)


def _check_record(remote: Remote, data: bytes, row: Mapping[str, object]) -> None:
    """Raise DamagedError unless a record is whole and names the same objects as the row, whose bytes are verified."""
    try:
        record = ClipRecord.model_validate(parse_checksummed(data, record_file(str(row["key"]))))
    except (ValueError, DamagedError):
        raise DamagedError(f"{record_file(str(row['key']))} at {remote.name} is damaged; remove it there") from None
    frames, truth = frame_files(record.frames), truth_files(record.frames.items())
    said = (record.key, record.sha256_bytes, record.sha256_frames, record.size_bytes, frames, truth.keys())
    lossless: list[tuple[str, str]] = row["lossless"]  # type: ignore[assignment]
    # Of truth the names: two machines may have rendered a scene's, and the version took the first.
    held = frame_files(dict(lossless)), truth_files(lossless).keys()
    if said != (row["key"], row["sha256_bytes"], row["sha256_frames"], row["size_bytes"], *held):
        raise DamagedError(f"{record_file(str(row['key']))} at {remote.name} belongs to another clip; remove it there")


def _move(history: History, move: Move) -> None:
    if move.name == HEAD:
        history.refs.swap_head(move.before, move.after)
    else:
        history.refs.swap_tag(move.name, move.before, move.after)


def _show(history: History, moving: list[Move], *, force: bool) -> None:
    """Make the folder show the head if the head moved, or if it is clean and was left behind by a pull that was cut off."""
    head = history.refs.head()
    if head is None:
        return
    moved = any(move.name == HEAD for move in moving)
    state = status(history)
    changed = any(difference.kind != "missing" for difference in state.differences)
    if moved or state.restoring == head or (not changed and not state.other_plan):
        restore(history, head, force=force)


def _has_files(folder: Path) -> bool:
    return any(path.name != INTERNAL for path in folder.iterdir())
