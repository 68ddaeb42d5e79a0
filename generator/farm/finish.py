"""The end of a farm's build: is every clip of the plan there? Then the dataset is committed as a version.

The plan is gone through part by part. What is found out of every clip, its record and the sizes of its objects, lies on the
disk, so that checking holds one part of the plan and one folder of objects at a time, however many clips there are.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, islice
from pathlib import Path

from generator.errors import DamagedError
from generator.farm.contents import contents
from generator.farm.parts import Parts
from generator.farm.remote_commit import commit_remote
from generator.farm.shards import Piece, deal
from generator.farm.target import Target, read_record
from generator.io.atomic import file_digest, write_atomic
from generator.io.spill_map import SpillMap
from generator.recipe.plan import ClipPlan
from generator.recipe.schema import Recipe
from generator.remotes.base import record_file
from generator.remotes.folder import FolderRemote
from generator.store.objects import ClipRecord
from generator.store.stored_plans import PlanFile
from generator.truth.truth_names import frame_files, is_truth
from generator.versions.commit import commit_shown
from generator.versions.history.history import INTERNAL, History
from generator.versions.history.locks import writing
from generator.versions.working.curation import refuse_curated
from generator.versions.working.working_folder import build_lock, difference, show, stored_plan
from scenes.errors import InputError

NAMED = 1000  # clips that a report names; of more it says how many
_READERS = 16
_SHOWN = 5
_DIGITS = 9
_ANY_SIZE = -1
_SHARD_HEARTBEAT = re.compile(r"shard-(\d+)-of-(\d+)")


@dataclass(frozen=True, kw_only=True)
class FinishReport:
    """What a finish found: how many clips the plan has and how many are missing, and the ids of the first of these.

    Where it is known how the plan was cut, `shards` are those of all missing clips (from 1, of `count`). `set_aside` are clips
    whose record was damaged; `version` is the one that was committed, if one was.
    """

    where: str
    clips: int
    missing_clips: int
    missing: tuple[str, ...]
    shards: tuple[int, ...]
    count: int | None
    set_aside: tuple[str, ...]
    version: str | None

    @property
    def complete(self) -> bool:
        """Whether every clip was there."""
        return not self.missing_clips

    def words(self) -> str:
        """Return what is missing, and what to do."""
        shown = ", ".join(self.missing[:_SHOWN]) + (" …" if self.missing_clips > _SHOWN else "")
        words = f"{self.missing_clips} of {self.clips} clips are not at {self.where} ({shown})"
        if self.set_aside:
            words += f"; {len(self.set_aside)} of them had a damaged record, which was set aside"
        if self.count is None:
            return f"{words}; run their shards again, then --finish"
        numbers = ranges(self.shards)
        return f"{words}, of shards {numbers} of {self.count}; run those again, as with --shard {self.shards[0]}/{self.count}"


def finish_target(target: Target, *, message: str | None, shards: int | None = None) -> FinishReport:
    """Check a target against its plan; commit it as a version where nothing is missing and `message` is not None.

    `shards` is how many the plan was cut into; None: as the workers' heartbeats say. Nothing is committed where a clip is
    missing. A record that is damaged, or names an object that is not there, is emptied, so that its shard makes the clip anew.
    """
    assert isinstance(target.parts, Parts), "a target for reading has no end"
    with ExitStack() as stack:
        survey = Survey(target, target.parts, stack)
        survey.read_records()
        survey.check_objects()
        missing_clips = len(survey.missing_clips)
        version = None if missing_clips else _commit(target, Records(survey.records), survey.sizes, message)
        count = shards if shards is not None else _count(target)
        return FinishReport(
            where=target.where,
            clips=target.parts.clips,
            missing_clips=missing_clips,
            missing=tuple(clip_id for _, clip_id in islice(survey.missing_clips.after(""), NAMED)),
            shards=tuple(survey.shards(count)) if count is not None and missing_clips else (),
            count=count,
            set_aside=tuple(survey.set_aside[:NAMED]),
            version=version,
        )


def ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers as Slurm's `--array` takes them: `3,7-9`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ",".join("-".join(map(str, run)) for run in runs)


class Records(Mapping[str, ClipRecord]):
    """Records by clip id, read from the disk one by one."""

    def __init__(self, texts: SpillMap) -> None:
        self._texts = texts

    def __getitem__(self, clip_id: str) -> ClipRecord:
        return ClipRecord.model_validate_json(self._texts[clip_id])

    def __contains__(self, clip_id: object) -> bool:
        return clip_id in self._texts

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)


class Survey:
    """What a build left: records by clip id, sizes of objects by sha256, and the missing clips in the plan's order."""

    def __init__(self, target: Target, parts: Parts, stack: ExitStack) -> None:
        self._target, self._parts = target, parts
        self.records, self.sizes, self.missing_clips, self._named = (stack.enter_context(SpillMap()) for _ in range(4))
        self.set_aside: list[str] = []

    def read_records(self) -> None:
        """Read the record of every clip; of a part of the plan that no one has begun, all clips are missing."""
        for number in range(self._parts.count):
            part = self._target.stored_part(number)
            if part is None:
                ids = (clip_id for scene in self._parts.keys(number) for clip_id in scene.clip_ids)
                self.missing_clips.put((_place(number, position), clip_id) for position, clip_id in enumerate(ids))
                continue
            files = _record_files(part)
            truths: dict[str, dict[str, str]] = {}  # of each scene, the truth that its first clip names: one scene, one truth
            for position, (clip, (data, record)) in enumerate(zip(part.plan.clips, files, strict=True)):
                place = _place(number, position)
                if record is None:
                    self._set_aside(part.keys[clip.clip_id], place, clip.clip_id, data)
                else:
                    truth = truths.setdefault(clip.scene_id, {k: v for k, v in record.frames.items() if is_truth(k)})
                    record = record.model_copy(update={"frames": {**frame_files(record.frames), **truth}})
                    self.records.put([(clip.clip_id, record.model_dump_json())])
                    self._named.put((f"{digest} {place}", f"{size} {clip.clip_id}") for digest, size in _objects(record))

    def check_objects(self) -> None:
        """Look for the objects that records name, folder by folder of the store."""
        for bucket, named in groupby(self._named.after(""), key=lambda entry: entry[0][:2]):
            found = self._target.retry.of(partial(self._target.remote.sizes, f"objects/{bucket}"))
            sizes = {path.rpartition("/")[2]: size for path, size in found.items()}
            self.sizes.put(sizes.items())
            for key, value in named:
                digest, _, place = key.partition(" ")
                size, _, clip_id = value.partition(" ")
                if sizes.get(digest) is None or int(size) not in (_ANY_SIZE, sizes[digest]):
                    self._objectless(clip_id, place)

    def shards(self, count: int) -> list[int]:
        """Return the numbers (from 1) of the shards, of `count`, that the missing clips belong to."""
        dealt: dict[int, list[tuple[int, Piece]]] = defaultdict(list)
        for shard, piece in deal(self._parts, count):
            dealt[piece.part].append((shard, piece))
        found: set[int] = set()
        for number, entries in groupby(self.missing_clips.after(""), key=lambda entry: int(entry[0][:_DIGITS])):
            ids = {clip_id for _, clip_id in entries}
            part = self._target.stored_part(number)
            for shard, piece in dealt[number]:
                if part is None or any(clip.clip_id in ids for clip in piece.clips(part.plan)):
                    found.add(shard)
        return sorted(found)

    def _objectless(self, clip_id: str, place: str) -> None:
        """Set a record aside that names an object that is not there, or not whole."""
        record = Records(self.records)[clip_id]
        data = self._target.retry.of(lambda: self._target.remote.read(record_file(record.key)))
        self._set_aside(record.key, place, clip_id, data)

    def _set_aside(self, key: str, place: str, clip_id: str, damaged: bytes | None) -> None:
        """Note that a clip is missing; empty its record if nobody changed it since: a shard may have mended it meanwhile."""
        if damaged is not None:
            self._target.retry.of(lambda: self._target.remote.swap(record_file(key), damaged, b""))
            if place not in self.missing_clips:
                self.set_aside.append(clip_id)
        self.missing_clips.put([(place, clip_id)])


def _objects(record: ClipRecord) -> list[tuple[str, int]]:
    """Return the objects that a record names with their sizes in bytes, where it tells them."""
    sizes = dict.fromkeys(record.frames.values(), _ANY_SIZE)
    return list({**sizes, record.sha256_bytes: record.size_bytes}.items())


def _place(number: int, position: int) -> str:
    """Return a key that sorts as the clips of the plan do: the number of the part, and of the clip in it."""
    return f"{number:0{_DIGITS}d} {position:0{_DIGITS}d}"


def _record_files(part: Target) -> list[tuple[bytes | None, ClipRecord | None]]:
    """Return for every clip of a part the bytes of its record, and the record where they are a whole one."""

    def read(clip: ClipPlan) -> tuple[bytes | None, ClipRecord | None]:
        key = part.keys[clip.clip_id]
        data = part.retry.of(lambda: part.remote.read(record_file(key)))
        try:
            return data, None if data is None else read_record(data, key, part.remote.name)
        except DamagedError:
            return data, None

    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(read, part.plan.clips))


def _commit(target: Target, records: Mapping[str, ClipRecord], sizes: Mapping[str, int], message: str | None) -> str | None:
    assert isinstance(target.parts, Parts), "a target for reading has no end"
    parts = target.parts
    if not isinstance(target.remote, FolderRemote):
        if message is None:
            return None
        with contents(parts, records) as made:
            return commit_remote(target, made, records, sizes, message).id
    path = target.remote.path
    # The folder shows its clips, as after the build of one machine.
    with build_lock(path), writing(path / INTERNAL), contents(parts, records) as made:
        refuse_curated(History(path), made.plan.digest, made.labels, str(path))
        _show_plan(path, made.plan)
        each = (parts.part(number) for number in range(parts.count))
        splits = None if message is None else History(path).split_ratios()
        show(path, each, replace(made.origin, splits=splits), made.labels, records, license=made.license)
        return None if message is None else commit_shown(History(path), made.labels, made.plan, records, message).id


def _show_plan(path: Path, plan: PlanFile) -> None:
    """Write plan.json into a folder; raises InputError where one machine has built another recipe there meanwhile."""
    file = path / INTERNAL / "plan.json"
    if file.is_file() and file_digest(file) == plan.digest:
        return
    there = stored_plan(path)
    if there is None:
        write_atomic(file, plan.path)
    elif there.digest != plan.digest:
        words = difference(there.recipe, Recipe.model_validate(plan.recipe))
        raise InputError(f"{path} is the dataset of another recipe ({words}); build into another place")


def _count(target: Target) -> int | None:
    """Return how many shards the plan was cut into, as most of the heartbeats say."""
    counts = Counter(int(match[2]) for name in target.heartbeats() if (match := _SHARD_HEARTBEAT.fullmatch(name)))
    return counts.most_common(1)[0][0] if counts else None
