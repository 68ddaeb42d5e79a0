"""Pushing: what a remote lacks is put there, objects first, then records, manifests, versions, and references last.

A kill at any instant leaves objects that nothing names yet, or whole versions; the next push goes on from there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import chain, islice

from generator.errors import DamagedError, RemoteError
from generator.io.disk_errors import reported
from generator.io.spill_map import SpillMap
from generator.remotes.base import Remote, object_file, record_file, same_folder, version_file
from generator.remotes.folder import FolderRemote
from generator.versions.history.history import History
from generator.versions.history.locks import reading
from generator.versions.history.version import Version
from generator.versions.manifest.leaves import read_leaf
from generator.versions.manifest.tree import Manifest
from generator.versions.sync.compare_refs import Ancestry, Move, either, local_refs, moves, ref_data, ref_file, remote_refs
from scenes.errors import InputError

THREADS = 8
_AHEAD = 4 * THREADS
_LARGE_BYTES = 4 * 2**20  # an object beyond this is sent from its file
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
    """What one version adds to its parents; nothing of it is held, a leaf is read when its turn comes.

    `known` are the leaves and branches that are there with all they name.
    """

    history: History
    version: Version
    manifest: Manifest
    known: Set[str]

    @property
    def objects(self) -> Iterator[str]:
        """The objects of plans, files and clips; one may come twice."""
        yield from dict.fromkeys((*self.version.plans, *self.version.files.values()))
        for needs in self._needs():
            yield from dict.fromkeys(digest for digests, _ in needs for digest in digests)

    @property
    def keys(self) -> Iterator[str]:
        """The keys of the clips' records."""
        for needs in self._needs():
            yield from dict.fromkeys(key for _, key in needs)

    @property
    def leaves(self) -> Iterator[str]:
        """The leaves and branches."""
        yield from (leaf.digest for leaf in self.manifest.each_leaf(self.known))
        yield from (branch.digest for branch in self.manifest.branches if branch.digest not in self.known)

    def _needs(self) -> Iterator[list[tuple[tuple[str, ...], str]]]:
        """Yield for every clip of a leaf the objects that it names, and the key of its record."""
        for leaf in self.manifest.each_leaf(self.known):
            names = ("clip_id", "key", "sha256_bytes", "lossless")
            rows = read_leaf(self.history.store, leaf, self.manifest.schema, names)
            columns = (rows[name].to_pylist() for name in names[1:])
            yield [((digest, *(frame for _, frame in lossless)), key) for key, digest, lossless in zip(*columns, strict=True)]


@reported
def push(history: History, remote: Remote, *, force: bool = False, progress: Progress | None = None) -> TransferReport:
    """Copy all that the head and the tags reach to a remote, then move its references to ours.

    Every byte is verified before it is sent. Raises InputError when the remote is none or has diverged and `force` is not set,
    DamagedError when something here or there is damaged; then no reference was moved.
    """
    mine = local_refs(history)
    if not mine:
        raise InputError(f"{history.path} has no version to push; `stopdown commit` makes the first")
    if isinstance(remote, FolderRemote) and same_folder(history.path, remote.path):
        raise InputError(f"{remote.name} is the dataset itself; give another folder")
    remote.prepare()
    with remote.writing(), reading(history.root):
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


def parent_leaves(history: History, version: Version) -> set[str]:
    """Return the leaves and branches of a version's parents."""
    parents = (history.manifest(history.load(parent)) for parent in version.parents)
    return {part.digest for manifest in parents for part in chain(manifest.each_leaf(), manifest.branches)}


def flowing(pool: ThreadPoolExecutor, step: Callable[[str], int], names: Iterable[str]) -> Iterator[int]:
    """Yield what a step returns for each name, in order; as `pool.map`, but only a few names are asked for ahead."""
    under_way: deque[Future[int]] = deque()
    try:
        for name in names:
            under_way.append(pool.submit(step, name))
            if len(under_way) >= _AHEAD:
                yield _result(under_way.popleft())
        while under_way:
            yield _result(under_way.popleft())
    finally:
        for future in under_way:
            future.cancel()


def _result(future: Future[int]) -> int:
    wait([future])
    return future.result()


def _parcels(history: History, remote: Remote, ancestry: Ancestry, mine: dict[str, str]) -> Iterator[Parcel]:
    present = remote.sizes("versions")
    for version in ancestry.oldest_first(mine.values()):
        if version_file(version.id) not in present:
            # Parents are there, or their parcels are sent before this one: their leaves need not be looked at.
            known = parent_leaves(history, version)
            yield Parcel(history=history, version=version, manifest=history.manifest(version), known=known)


def _send(history: History, remote: Remote, parcels: Sequence[Parcel], progress: Progress | None) -> tuple[int, int]:
    """Send parcels one after the other; return how many objects were put, and their bytes."""
    with SpillMap() as there, ThreadPoolExecutor(THREADS) as pool:
        total = _look(remote, parcels, there, pool)
        sender = _Sender(history, remote, there)
        count = size_bytes = done = 0
        for parcel in parcels:
            steps: tuple[tuple[Callable[[str], int], Iterable[str]], ...] = (
                (sender.object, parcel.objects),
                (sender.record, parcel.keys),
                (sender.object, parcel.leaves),
                (sender.object, (parcel.version.manifest,)),
            )
            for step, names in steps:
                for size in flowing(pool, step, names):
                    done += 1
                    count, size_bytes = count + (size >= 0), size_bytes + max(size, 0)
                    if progress is not None:
                        progress(done, total)
            remote.put(version_file(parcel.version.id), parcel.version.data)
            done += 1
    return count, size_bytes


class _Sender:
    """Sends what the remote lacks; `there` are the sizes of what it has, by path."""

    def __init__(self, history: History, remote: Remote, there: SpillMap) -> None:
        self._history, self._remote, self._there = history, remote, there

    def object(self, digest: str) -> int:
        """Send an object; return its size, or -1 where it was there already."""
        path, store = object_file(digest), self._history.store
        size = self._there.get(path)
        if size is not None:
            _check_size(self._history, self._remote, digest, size)
            return -1
        here = store.size(digest) or 0
        data = store.verified(digest) if here > _LARGE_BYTES else store.read(digest)
        new = self._remote.put(path, data)
        if not new:
            _mend(self._remote, path, data if isinstance(data, bytes) else data.read_bytes())
        self._there.put([(path, here)])
        return here if new else -1

    def record(self, key: str) -> int:
        """Send a clip's record where there is one here."""
        path = record_file(key)
        if self._history.store.record(key) is not None and path not in self._there:
            self._remote.put(path, (self._history.root / path).read_bytes())
        return -1


def _look(remote: Remote, parcels: Sequence[Parcel], there: SpillMap, pool: ThreadPoolExecutor) -> int:
    """Put the sizes of what is on the remote into `there`, listing only the shards that are needed; return how many files
    parcels have."""
    shards: set[str] = set()
    total = 0
    for parcel in parcels:
        for path in chain(
            map(object_file, chain(parcel.objects, parcel.leaves, (parcel.version.manifest,))), map(record_file, parcel.keys)
        ):
            shards.add(path.rpartition("/")[0])
            total += 1
        total += 1  # the version
    names = iter(sorted(shards))
    while some := list(islice(names, THREADS)):
        for sizes in pool.map(remote.sizes, some):
            there.put(sizes.items())
    return total


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
