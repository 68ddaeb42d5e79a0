"""The end of a farm's build: is every clip of the plan there? Then the dataset is committed as a version."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from generator.farm.remote_commit import commit_remote, object_sizes
from generator.farm.shards import shards_of
from generator.farm.target import Target, read_record
from generator.files import DamagedError
from generator.plan import ClipPlan
from generator.store import ClipRecord
from generator.versions.commit import commit_build
from generator.versions.history import INTERNAL, History
from generator.versions.locks import writing
from generator.versions.remote import record_file
from generator.versions.remote_folder import FolderRemote
from generator.working_folder import build_lock, finish

_READERS = 16
_SHOWN = 5
_SHARD_BEAT = re.compile(r"shard-(\d+)-of-(\d+)")


@dataclass(frozen=True, kw_only=True)
class FinishReport:
    """What a finish found: clips of the plan, those that lack and, where it is known how the plan was cut, their shards (from
    1, of `count`), records that were damaged and set aside; and the version, where it was committed."""

    where: str
    clips: int
    missing: tuple[str, ...]
    shards: tuple[int, ...]
    count: int | None
    set_aside: tuple[str, ...]
    version: str | None

    @property
    def complete(self) -> bool:
        """Whether every clip was there."""
        return not self.missing

    def words(self) -> str:
        """Return what lacks, and what to do."""
        shown = ", ".join(self.missing[:_SHOWN]) + (" …" if len(self.missing) > _SHOWN else "")
        words = f"{len(self.missing)} of {self.clips} clips are not at {self.where} ({shown})"
        if self.set_aside:
            words += f"; {len(self.set_aside)} of them had a damaged record, which was set aside"
        if self.count is None:
            return f"{words}; run their shards again, then --finish"
        numbers = ranges(self.shards)
        return f"{words}, of shards {numbers} of {self.count}; run those again, as with --shard {self.shards[0]}/{self.count}"


def finish_target(target: Target, *, message: str | None, shards: int | None = None) -> FinishReport:
    """Check a target against its plan; commit it as a version where nothing lacks and `message` is not None.

    `shards` is how many the plan was cut into; None: as the workers' beats say. Nothing is committed where a clip lacks. A
    record that is damaged, or names an object that is not there, is emptied, so that its shard makes the clip anew.
    """
    absent = {clip.clip_id for clip in target.missing()}
    present = [clip for clip in target.plan.clips if clip.clip_id not in absent]
    files = _record_files(target, present)
    records = {clip_id: record for clip_id, (_, record) in files.items() if record is not None}
    sizes = object_sizes(target, records)
    damaged = [clip for clip in present if not _is_whole(records.get(clip.clip_id), sizes)]
    for clip in damaged:
        _set_aside(target, record_file(target.keys[clip.clip_id]), files[clip.clip_id][0])
    gone = absent | {clip.clip_id for clip in damaged}
    lacking = [clip for clip in target.plan.clips if clip.clip_id in gone]
    version = None if lacking else _commit(target, records, sizes, message)
    count = shards if shards is not None else _count(target)
    return FinishReport(
        where=target.where,
        clips=len(target.plan.clips),
        missing=tuple(clip.clip_id for clip in lacking),
        shards=tuple(shards_of(target.plan, count, lacking)) if count is not None and lacking else (),
        count=count,
        set_aside=tuple(clip.clip_id for clip in damaged),
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


def _record_files(target: Target, clips: Sequence[ClipPlan]) -> dict[str, tuple[bytes | None, ClipRecord | None]]:
    """Return by clip id the bytes of the record, and the record where they are a whole one."""

    def read(clip: ClipPlan) -> tuple[bytes | None, ClipRecord | None]:
        key = target.keys[clip.clip_id]
        data = target.patience.of(lambda: target.remote.read(record_file(key)))
        try:
            return data, None if data is None else read_record(data, key, target.remote.name)
        except DamagedError:
            return data, None

    with ThreadPoolExecutor(_READERS) as pool:
        return dict(zip((clip.clip_id for clip in clips), pool.map(read, clips), strict=True))


def _is_whole(record: ClipRecord | None, sizes: Mapping[str, int]) -> bool:
    if record is None or any(digest not in sizes for digest in record.frames.values()):
        return False
    return sizes.get(record.sha256_bytes) == record.size_bytes


def _set_aside(target: Target, path: str, damaged: bytes | None) -> None:
    """Empty a record that still is what was found to be damaged: a shard may have mended it meanwhile."""
    if damaged is not None:
        target.patience.of(lambda: target.remote.swap(path, damaged, b""))


def _commit(target: Target, records: Mapping[str, ClipRecord], sizes: Mapping[str, int], message: str | None) -> str | None:
    if not isinstance(target.remote, FolderRemote):
        return None if message is None else commit_remote(target, records, sizes, message).id
    path, plan = target.remote.path, target.plan
    with build_lock(path), writing(path / INTERNAL):  # the folder shows its clips, as after the build of one machine
        finish(path, plan, records)
        return None if message is None else commit_build(History(path), plan, records, message).id


def _count(target: Target) -> int | None:
    """Return how many shards the plan was cut into, as most of the beats say."""
    counts = Counter(int(match[2]) for name in target.beats() if (match := _SHARD_BEAT.fullmatch(name)))
    return counts.most_common(1)[0][0] if counts else None
