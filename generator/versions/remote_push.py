"""Pushing: what a remote lacks is put there, objects first, then records, manifests, versions, and references last.

A kill at any instant leaves objects that nothing names yet, or whole versions; the next push goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from generator.files import DamagedError
from generator.versions.history import History
from generator.versions.locks import writing
from generator.versions.manifest import read_leaf
from generator.versions.manifest_tree import Leaf, Manifest
from generator.versions.remote import Remote, RemoteError, object_file, record_file, same_folder, version_file
from generator.versions.remote_folder import FolderRemote
from generator.versions.remote_refs import Ancestry, Move, either, local_refs, moves, ref_data, ref_file, remote_refs
from generator.versions.reported import reported
from generator.versions.version import Version
from scenes.errors import InputError

THREADS = 8
Progress = Callable[[int, int], None]  # files done, files in all


@dataclass(frozen=True, kw_only=True)
class TransferReport:
    """What a push or pull moved: versions (oldest first), objects and their bytes, references."""

    versions: tuple[str, ...]
    objects: int
    size_bytes: int
    moves: tuple[Move, ...]


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """What one version adds to its parents: objects of clips, plans and files; records by clip key; leaves and branches."""

    version: Version
    objects: tuple[str, ...]
    keys: tuple[str, ...]
    leaves: tuple[str, ...]


@reported
def push(history: History, remote: Remote, *, force: bool = False, progress: Progress | None = None) -> TransferReport:
    """Copy all that the head and the tags reach to a remote, then move its references to ours.

    Every byte is proven before it is sent. Raises InputError when the remote is none or has diverged and `force` is not set,
    DamagedError when something here or there is damaged; then no reference was moved.
    """
    mine = local_refs(history)
    if not mine:
        raise InputError(f"{history.path} has no version to push; `stopdown commit` makes the first")
    if isinstance(remote, FolderRemote) and same_folder(history.path, remote.path):
        raise InputError(f"{remote.name} is the dataset itself; give another folder")
    remote.prepare()
    with remote.writing(), writing(history.root):
        theirs = remote_refs(remote)
        ancestry = Ancestry(either(history, remote))
        advice = "pull from it and merge first, or push with --force to move it"
        old = {name: ref.version for name, ref in theirs.items()}
        moving = moves(old, mine, ancestry, force=force, where=remote.name, advice=advice)
        parcels = list(_parcels(history, remote, ancestry, mine))
        objects, size_bytes = _send(history, remote, parcels, progress)
        for move in moving:
            before = theirs.get(move.name)
            if not remote.swap(ref_file(move.name), None if before is None else before.data, ref_data(move.name, move.after)):
                raise RemoteError(f"another push moved '{move.name}' at {remote.name} meanwhile; pull from it, then push again")
    versions = tuple(parcel.version.id for parcel in parcels)
    return TransferReport(versions=versions, objects=objects, size_bytes=size_bytes, moves=tuple(moving))


def version_parcel(history: History, version: Version, manifest: Manifest, known: set[str]) -> Parcel:
    """Return what a version needs beside the leaves that are known to be there with all they name."""
    objects = dict.fromkeys((*version.plans, *version.files.values()))
    keys: dict[str, None] = {}
    fresh = [leaf for leaf in manifest.leaves if leaf.digest not in known]
    for leaf in fresh:
        for digests, key in leaf_needs(history, leaf, manifest):
            objects.update(dict.fromkeys(digests))
            keys[key] = None
    leaves = tuple(part.digest for part in (*fresh, *manifest.branches) if part.digest not in known)
    return Parcel(version=version, objects=tuple(objects), keys=tuple(keys), leaves=leaves)


def leaf_needs(history: History, leaf: Leaf, manifest: Manifest) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield for every clip of a leaf the objects that it names, and the key of its record."""
    rows = read_leaf(history.store, leaf, manifest.schema, ("clip_id", "key", "sha256_bytes", "lossless"))
    columns = (rows[name].to_pylist() for name in ("key", "sha256_bytes", "lossless"))
    for key, digest, lossless in zip(*columns, strict=True):
        yield (digest, *(frame for _, frame in lossless)), key


def parent_leaves(history: History, version: Version) -> set[str]:
    """Return the leaves and branches of a version's parents."""
    parents = [history.manifest(history.load(parent)) for parent in version.parents]
    return {part.digest for manifest in parents for part in (*manifest.leaves, *manifest.branches)}


def _parcels(history: History, remote: Remote, ancestry: Ancestry, mine: dict[str, str]) -> Iterator[Parcel]:
    present = remote.sizes("versions")
    for version in ancestry.oldest_first(mine.values()):
        if version_file(version.id) not in present:
            # Parents are there, or their parcels are sent before this one: their leaves need not be looked at.
            yield version_parcel(history, version, history.manifest(version), parent_leaves(history, version))


def _send(history: History, remote: Remote, parcels: Sequence[Parcel], progress: Progress | None) -> tuple[int, int]:
    """Send parcels one after the other; return how many objects were put, and their bytes."""
    total = sum(len(parcel.objects) + len(parcel.keys) + len(parcel.leaves) + 2 for parcel in parcels)
    there = _there(remote, parcels)
    count = size_bytes = done = 0

    def send_object(digest: str) -> int:
        path = object_file(digest)
        if path in there:
            _check_size(history, remote, digest, there[path])
            return -1
        data = history.store.read(digest)
        if remote.put(path, data):
            return len(data)
        _mend(remote, path, data)
        return -1

    def send_record(key: str) -> int:
        record = history.store.record(key)
        if record is not None and record_file(key) not in there:
            remote.put(record_file(key), (history.root / record_file(key)).read_bytes())
        return -1

    with ThreadPoolExecutor(THREADS) as pool:
        for parcel in parcels:
            steps: tuple[tuple[Callable[[str], int], Iterable[str]], ...] = (
                (send_object, parcel.objects),
                (send_record, parcel.keys),
                (send_object, parcel.leaves),
                (send_object, (parcel.version.manifest,)),
            )
            for step, names in steps:
                for size in pool.map(step, names):
                    done += 1
                    count, size_bytes = count + (size >= 0), size_bytes + max(size, 0)
                    if progress is not None:
                        progress(done, total)
            remote.put(version_file(parcel.version.id), parcel.version.data)
            done += 1
    return count, size_bytes


def _there(remote: Remote, parcels: Sequence[Parcel]) -> dict[str, int]:
    """Return the sizes of what is on the remote already, listing only the shards that are needed."""
    shards: set[str] = set()
    for parcel in parcels:
        shards |= {object_file(digest).rsplit("/", 1)[0] for digest in (*parcel.objects, *parcel.leaves)}
        shards |= {record_file(key).rsplit("/", 1)[0] for key in parcel.keys}
        shards.add(object_file(parcel.version.manifest).rsplit("/", 1)[0])
    found: dict[str, int] = {}
    with ThreadPoolExecutor(THREADS) as pool:
        for sizes in pool.map(remote.sizes, sorted(shards)):
            found.update(sizes)
    return found


def _mend(remote: Remote, path: str, data: bytes) -> None:
    """Prove what came meanwhile, from another writer or from an attempt of ours that failed half-way; replace what is torn."""
    found = remote.read(path)
    if found != data and not remote.swap(path, found, data):
        raise RemoteError(f"another push changed {path} at {remote.name} meanwhile; run the same command again")


def _check_size(history: History, remote: Remote, digest: str, size: int) -> None:
    here = history.store.size(digest)
    if here is None:
        raise DamagedError(f"object {digest[:12]} is missing from {history.root}; run `stopdown verify` there")
    if here != size:
        raise DamagedError(f"{object_file(digest)} at {remote.name} is damaged ({size} bytes); remove it there and push again")
