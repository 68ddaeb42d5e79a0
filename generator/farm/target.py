"""Where a farm's dataset lies, and the one way there for every engine: clip by clip, objects first, the record last.

STORE/.stopdown/farm.json       the recipe, and the versions of Stopdown and Blender that all workers must have
STORE/.stopdown/plan/000042.jsonl   a part of the plan
STORE/.stopdown/farm/NAME.json  what each worker last said of itself (small, overwritten)
STORE/.stopdown/objects, records, scenes

Every file but the heartbeats is put only where there is none, so that a clip delivered twice changes nothing.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from pydantic import ValidationError

from generator.errors import DamagedError, RemoteError
from generator.farm.claim import check_recipe, claim_store, read_claim
from generator.farm.parts import Parts, StoredParts, header
from generator.io.atomic import write_atomic
from generator.io.checksummed_json import checksummed, parse_checksummed, sha256
from generator.recipe.blend_file import FOLDER, file_sha256
from generator.recipe.plan import ClipPlan, Plan
from generator.recipe.schema import Recipe
from generator.remotes.base import Remote, RemoteOptions, object_file, open_remote, record_file
from generator.remotes.folder import FolderRemote
from generator.remotes.put_verified import put_verified
from generator.remotes.retry import Retry
from generator.store.objects import ClipRecord, Store
from generator.store.record_keys import clip_keys
from scenes.errors import InputError

HEARTBEATS = "farm"
THREADS = 8
_LOOKUPS = 4  # this many records of one bucket are asked for one by one; a bucket with more is listed,
_LISTED_PER_LOOKUP = 64  # unless it may hold more than so many for each that is asked for: a shard must not pay for the others
_BUCKETS = 256
_BEAT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class ClipKeys(Mapping[str, str]):
    """The keys of a plan's records by clip id, computed when they are asked for."""

    def __init__(self, plan: Plan, blender: str) -> None:
        self._plan, self._blender = plan, blender

    @cached_property
    def _keys(self) -> dict[str, str]:
        return clip_keys(self._plan, self._blender)

    def __getitem__(self, clip_id: str) -> str:
        return self._keys[clip_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._plan.clip_by_id)

    def __len__(self) -> int:
        return len(self._plan.clips)


class StoredKeys(Mapping[str, str]):
    """The parts of a plan that are in the store; of them, one is held at a time."""

    def __init__(self, parts: StoredParts, blender: str) -> None:
        self._parts, self._blender = parts, blender
        self._last: Mapping[str, str] = {}

    def __getitem__(self, clip_id: str) -> str:
        if clip_id not in self._last:
            self._last = next((keys for keys in self._each() if clip_id in keys), {})
        return self._last[clip_id]

    def __iter__(self) -> Iterator[str]:
        return (clip_id for keys in self._each() for clip_id in keys)

    def __len__(self) -> int:
        return sum(len(keys) for keys in self._each())

    def _each(self) -> Iterator[Mapping[str, str]]:
        plans = (self._parts.read(number) for number in range(self._parts.count))
        return (ClipKeys(plan, self._blender) for plan in plans if plan is not None)


@dataclass(frozen=True, kw_only=True)
class Target:
    """A store that is to hold a plan's clips; `keys` are the keys of their records by clip id.

    `plan` is what is at hand of it: all, a part, or (for a target that was opened for a recipe) what its parts share. `parts`
    is the way to the rest, None in a target of one part; `of` is how many clips the whole plan has.
    """

    where: str
    remote: Remote
    plan: Plan
    blender: str
    keys: Mapping[str, str]
    retry: Retry = field(default_factory=Retry)
    parts: StoredParts | None = None
    of: int = 0

    def part(self, number: int) -> Target:
        """Return the target of a part of the plan, which is drawn and put into the store where it is not there."""
        assert isinstance(self.parts, Parts), "a target for reading has no plan to draw from"
        return self._of(self.parts.part(number))

    def stored_part(self, number: int) -> Target | None:
        """Return the target of a part of the plan, or None where it is not in the store: then no one has begun it."""
        assert self.parts is not None, "this is the target of one part"
        plan = self.parts.read(number)
        return None if plan is None else self._of(plan)

    def _of(self, plan: Plan) -> Target:
        assert self.parts is not None
        return replace(self, plan=plan, keys=ClipKeys(plan, self.blender), parts=None, of=self.parts.clips)

    def missing(self, clips: Iterable[ClipPlan] | None = None) -> list[ClipPlan]:
        """Return the clips (None: all of the plan at hand) that have no record there, in order."""
        assert clips is not None or self.plan.clips, "ask the parts of a plan one by one"
        wanted = list(self.plan.clips if clips is None else clips)
        there = self._records_there({self.keys[clip.clip_id] for clip in wanted})
        return [clip for clip in wanted if self.keys[clip.clip_id] not in there]

    def publish(self, scratch: Store, key: str) -> bool:
        """Send a clip from a scratch store; return False where its record was already there.

        Objects go first and are read back, the record last: what a kill leaves is a finished clip or no clip. Trouble that may
        pass is waited out; raises RemoteError when it lasts, DamagedError when the scratch store is damaged.
        """
        record = scratch.record(key)
        if record is None:
            raise DamagedError(f"clip {key[:12]} has no record in {scratch.root}; render it again")
        return self.retry.of(lambda: self._publish(scratch, record))

    def record(self, key: str) -> ClipRecord | None:
        """Return a clip's record there, or None; raises DamagedError for one that is no record."""
        data = self.retry.of(lambda: self.remote.read(record_file(key)))
        return None if data is None else read_record(data, key, self.remote.name)

    def write_heartbeat(self, name: str, data: bytes) -> bool:
        """Write what a worker says of itself; return False where it could not be written, which must not stop a build."""
        try:
            self.remote.overwrite(_beat_file(name), data)
        except RemoteError:
            return False
        return True

    def heartbeats(self) -> dict[str, bytes]:
        """Return what every worker last said of itself, by name."""
        paths = sorted(self.retry.of(lambda: self.remote.sizes(HEARTBEATS)))
        with ThreadPoolExecutor(THREADS) as pool:
            found = pool.map(lambda path: self.retry.of(lambda: self.remote.read(path)), paths)
            names = (path.removeprefix(f"{HEARTBEATS}/").removesuffix(".json") for path in paths)
            return {name: data for name, data in zip(names, found, strict=True) if data is not None}

    def take_scene(self, folder: Path | None) -> None:
        """Put the .blend of a recipe that has one; `folder` is the recipe's. Raises InputError for another file than marked."""
        scene = self.plan.recipe.scene
        if scene is None or scene.marks is None or folder is None:
            return
        file, path = folder / scene.file, _scene_file(scene.marks.sha256)
        if file_sha256(file) != scene.marks.sha256:
            raise InputError(f"{file} has changed since it was marked; run `stopdown mark {file}` again")
        self.retry.of(lambda: self.remote.put(path, file.read_bytes()))

    def fetch_scene(self, scratch: Store) -> None:
        """Bring the .blend of a recipe that has one into a scratch store, for its render processes.

        Raises DamagedError where it is missing or has another hash.
        """
        scene = self.plan.recipe.scene
        if scene is None or scene.marks is None:
            return
        path = _scene_file(scene.marks.sha256)
        kept = scratch.root / path
        if kept.is_file():
            return
        data = self.retry.of(lambda: self.remote.read(path))
        if data is None or sha256(data) != scene.marks.sha256:
            raise DamagedError(f"{path} is missing from {self.remote.name} or damaged; remove it there and build again")
        write_atomic(kept, data, mode=0o444)

    def _publish(self, scratch: Store, record: ClipRecord) -> bool:
        path = record_file(record.key)
        with self.remote.writing():
            there = self.remote.read(path)
            if there is not None and _is_record(there, record.key):
                return False
            for digest in dict.fromkeys((record.sha256_bytes, *record.frames.values())):
                self._put_object(digest, scratch)
            data = checksummed(record.model_dump(mode="json"))
            return put_verified(self.remote, path, data, lambda found: _is_record(found, record.key))

    def _put_object(self, digest: str, scratch: Store) -> None:
        path = object_file(digest)
        try:
            data = scratch.read(digest)
        except DamagedError:
            found = self.remote.read(path)  # a clip with the same bytes was published, and dropped from the scratch store
            if found is not None and sha256(found) == digest:
                return
            raise
        put_verified(self.remote, path, data, lambda found: sha256(found) == digest)

    def _records_there(self, keys: Collection[str]) -> set[str]:
        buckets: dict[str, list[str]] = defaultdict(list)
        for key in keys:
            buckets[key[:2]].append(key)
        with ThreadPoolExecutor(THREADS) as pool:
            return {key for found in pool.map(self._bucket, buckets.values()) for key in found}

    def _bucket(self, keys: list[str]) -> list[str]:
        clips = max(self.of, len(self.plan.clips))
        if len(keys) <= _LOOKUPS or len(keys) * _LISTED_PER_LOOKUP < clips / _BUCKETS:
            found = ((key, self.retry.of(partial(self.remote.read, record_file(key)))) for key in keys)
            return [key for key, data in found if data is not None and _is_record(data, key)]
        sizes = self.retry.of(lambda: self.remote.sizes(record_file(keys[0]).rpartition("/")[0]))
        return [key for key in keys if sizes.get(record_file(key), 0) > 0]  # an empty one was set aside as damaged


def open_target(
    where: str, plan: Plan | Recipe, *, blender: str, options: RemoteOptions | None = None, retry: Retry | None = None
) -> Target:
    """Open a folder or s3://BUCKET/PREFIX for the clips of a recipe, or of a plan drawn before, and claim it; a folder is made
    where there is none.

    Raises InputError for a store of another recipe or of other versions of Stopdown or Blender, naming both, for one that
    cannot put conditionally, and for one that cannot be reached or written to.
    """
    remote = open_remote(where, options)
    if isinstance(remote, FolderRemote):
        make_folder(remote.path)
    return target_at(remote, plan, blender=blender, retry=retry)


def target_at(remote: Remote, plan: Plan | Recipe, *, blender: str, retry: Retry | None = None) -> Target:
    """Claim a remote for a plan's clips; as `open_target` for a remote that is open already."""
    retry = retry or Retry()
    parts = Parts(plan, remote, retry)
    claim_store(remote, parts, blender, retry)
    return _target(remote, plan, parts, blender, retry)


def claimed_target(where: str, plan: Plan | Recipe, *, options: RemoteOptions | None = None) -> Target:
    """Open a store that workers have claimed for a plan; nothing is rendered, so no Blender is needed here.

    Raises InputError where no farm builds, or builds another recipe or with another version of Stopdown, naming both.
    """
    remote, retry = open_remote(where, options), Retry()
    claim = read_claim(remote, retry)
    parts = Parts(plan, remote, retry)
    check_recipe(remote, claim, parts)
    return _target(remote, plan, parts, claim.blender, retry)


def look_at(where: str, options: RemoteOptions | None = None, *, retry: Retry | None = None) -> Target:
    """Return the target that a farm builds at a place, for reading; changes nothing. Raises InputError where there is none."""
    remote, retry = open_remote(where, options), retry or Retry()
    claim = read_claim(remote, retry)
    parts = StoredParts(claim.recipe, claim.parts, claim.clips, remote, retry)
    return _target(remote, claim.recipe, parts, claim.blender, retry)


def _target(remote: Remote, plan: Plan | Recipe, parts: StoredParts, blender: str, retry: Retry) -> Target:
    keys: Mapping[str, str] = StoredKeys(parts, blender)
    if isinstance(plan, Plan):
        keys = ClipKeys(plan, blender)
    at_hand = plan if isinstance(plan, Plan) else header(plan)
    return Target(
        where=remote.name,
        remote=remote,
        plan=at_hand,
        blender=blender,
        keys=keys,
        retry=retry,
        parts=parts,
        of=parts.clips,
    )


def make_folder(path: Path) -> None:
    """Make a folder for a dataset, where there is none; raises InputError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be made ({error.strerror}); give a folder that can be written to") from error


def _beat_file(name: str) -> str:
    if not _BEAT.fullmatch(name):
        raise InputError(f"'{name}' cannot name a worker; use 1 to 100 of A-Z a-z 0-9 . _ -, beginning with a letter or digit")
    return f"{HEARTBEATS}/{name}.json"


def _scene_file(digest: str) -> str:
    return f"{FOLDER}/{digest}.blend"


def read_record(data: bytes, key: str, name: str) -> ClipRecord:
    """Return the record that a file of the store called `name` holds; raises DamagedError."""
    try:
        record = ClipRecord.model_validate(parse_checksummed(data, record_file(key)))
    except (ValidationError, DamagedError):
        raise DamagedError(f"{record_file(key)} at {name} is damaged; `stopdown build --finish` sets it aside") from None
    if record.key != key:
        raise DamagedError(f"{record_file(key)} at {name} belongs to another clip ({record.key[:12]}); remove it there")
    return record


def _is_record(data: bytes, key: str) -> bool:
    try:
        return read_record(data, key, "").key == key
    except DamagedError:
        return False
