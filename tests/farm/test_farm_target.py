"""The store of a farm: one way there, trouble waited out, the end checked, other recipes and programs refused."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from farm_support import BLENDER, RECIPE, begin, fake_clips, farm_plan, hasty, made, quiet, shard_clips, shards_of, whole

from generator.errors import DamagedError, RemoteError
from generator.farm import parts
from generator.farm.finish import finish_target
from generator.farm.prefetch import prefetch
from generator.farm.shard_build import Publisher, ShardOptions, build_shard, scratch_store
from generator.farm.shards import Shard
from generator.farm.target import Target, claimed_target, look_at, open_target, target_at
from generator.io.checksummed_json import sha256
from generator.remotes.base import object_file, record_file
from generator.remotes.folder import FolderRemote
from generator.remotes.retry import Retry
from generator.store.objects import ClipRecord, Store
from generator.store.record_keys import clip_keys
from generator.versions.history.history import History
from generator.versions.working.working_folder import create_or_resume, stored_plan
from scenes.errors import InputError

PLAN = farm_plan()


# --- the store of a farm -------------------------------------------------------------------------------------------------


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return target_at(FolderRemote(made(tmp_path / "store")), PLAN, blender=BLENDER, retry=hasty())


class Troubled(FolderRemote):
    """A folder whose disk, in the places that a test names, fails, tears or waits."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.failures = 0
        self.lasting = False
        self.torn: set[str] = set()
        self.gate: threading.Semaphore | None = None
        self.puts: list[str] = []

    def put(self, path: str, data: bytes) -> bool:
        if self.gate is not None and path.startswith("records/"):
            self.gate.acquire()
        if self.failures:
            self.failures -= 1
            raise RemoteError("the disk coughs", lasting=self.lasting)
        self.puts.append(path)
        if path in self.torn:
            self.torn.remove(path)
            super().put(path, data[: len(data) // 2])
            raise RemoteError("the connection was cut")
        return super().put(path, data)


def test_a_clip_is_published_once_with_its_record_last(target: Target, tmp_path: Path) -> None:
    scratch = Store(tmp_path / "scratch")
    (clip_id,) = fake_clips(target, scratch, 1)
    key = target.keys[clip_id]
    assert len(target.missing()) == len(PLAN.clips)
    assert target.publish(scratch, key) is True
    assert target.publish(scratch, key) is False
    assert target.record(key) == scratch.record(key)
    assert [clip.clip_id for clip in target.missing(PLAN.clips[:3])] == [clip.clip_id for clip in PLAN.clips[1:3]]
    assert clip_id not in {clip.clip_id for clip in target.missing()}


def test_publishing_waits_out_trouble_and_mends_what_was_torn(tmp_path: Path) -> None:
    remote, waits = Troubled(made(tmp_path / "store")), []
    retry = Retry(attempts=5, first_s=1.0, most_s=3.0, sleep=waits.append, uniform=lambda: 0.5)
    target = target_at(remote, PLAN, blender=BLENDER, retry=retry)
    scratch = Store(tmp_path / "scratch")
    first, second, third = fake_clips(target, scratch, 3)
    remote.failures = 4
    assert target.publish(scratch, target.keys[first])
    assert waits == [0.5, 1.0, 1.5, 1.5]  # half of 1, 2, 3, 3 seconds

    record = scratch.record(target.keys[second])
    assert record is not None
    remote.torn = {object_file(record.sha256_bytes), record_file(record.key)}
    assert target.publish(scratch, record.key)
    data = remote.read(object_file(record.sha256_bytes))
    assert data is not None and sha256(data) == record.sha256_bytes
    assert target.record(record.key) == record

    remote.failures = 5
    with pytest.raises(RemoteError, match="coughs"):
        target.publish(scratch, target.keys[third])
    remote.failures, remote.lasting, waits[:] = 1, True, []
    with pytest.raises(RemoteError, match="coughs"):
        target.publish(scratch, target.keys[third])
    assert waits == []  # what will not pass is not waited for
    assert remote.read(record_file(target.keys[third])) is None
    assert target.publish(scratch, target.keys[third])


def test_clips_with_the_same_bytes_are_published_though_the_scratch_store_dropped_them(target: Target, tmp_path: Path) -> None:
    scratch = Store(tmp_path / "scratch")
    first, second = fake_clips(target, scratch, 2)
    record = scratch.record(target.keys[first])
    assert record is not None
    scratch.forget(target.keys[second])
    scratch.put_record(record.model_copy(update={"key": target.keys[second]}))
    assert target.publish(scratch, record.key)
    scratch.drop(record)
    assert target.publish(scratch, target.keys[second])
    lost = fake_clips(target, scratch, 3)[2]
    gone = scratch.record(target.keys[lost])
    assert gone is not None
    scratch.path(gone.sha256_bytes).unlink()
    with pytest.raises(DamagedError, match="missing"):
        target.publish(scratch, target.keys[lost])


def test_no_more_clips_wait_to_be_published_than_allowed(tmp_path: Path) -> None:
    remote = Troubled(made(tmp_path / "store"))
    target = target_at(remote, PLAN, blender=BLENDER, retry=hasty())
    scratch, published, added = Store(tmp_path / "scratch"), [], []
    ids = fake_clips(target, scratch, 20)
    remote.gate = threading.Semaphore(0)

    def render() -> None:
        with Publisher(target, scratch, 3, lambda clip_id, _: published.append(clip_id)) as publisher:
            for clip_id in ids:
                publisher.add(clip_id, 0.1)
                added.append(clip_id)
            publisher.finish()

    thread = threading.Thread(target=render)
    thread.start()
    for _ in ids:
        assert len(added) - len(published) <= 3
        remote.gate.release()
    thread.join()
    assert sorted(published) == sorted(ids)
    assert [path for path in scratch.root.rglob("*") if path.is_file()] == []  # what is published is dropped


def test_a_store_that_refuses_for_good_ends_the_shard_and_keeps_what_was_rendered(tmp_path: Path) -> None:
    remote = Troubled(made(tmp_path / "store"))
    target = target_at(remote, PLAN, blender=BLENDER, retry=hasty())
    shard, options = Shard(1, 40), ShardOptions(scratch=made(tmp_path / "scratch"))
    clips = shard_clips(PLAN, shard)

    def render(settings, pool, jobs, progress, on_done):  # type: ignore[no-untyped-def]
        assert pool.attempts == 3 and pool.silence_s >= 600
        target_ids = {clip.clip_id for job in jobs for clip in job.clips}
        scratch = Store(settings.store)
        data = scratch.put(b"video")
        for clip in (clip for clip in clips if clip.clip_id in target_ids):
            key = target.keys[clip.clip_id]
            base = ClipRecord(key=key, sha256_bytes=data, sha256_frames=data, size_bytes=5, blender="b", encoder="e", cpu_s=1.0)
            Store(settings.store).put(b"video")
            scratch.put_record(base)
            on_done(clip.clip_id, 1.0)
        return {}

    begin(target)
    remote.failures, remote.lasting = 1000, True
    with pytest.raises(RemoteError, match="coughs"):
        build_shard(target, shard, options=options, progress=quiet(), render=render)
    assert target.missing(clips) == clips
    assert list((tmp_path / "scratch").rglob("records/*/*.json"))
    remote.failures = 0

    def nothing(*_: object) -> dict[str, str]:
        raise AssertionError("what lies in the scratch store is not rendered again")

    if len(clips) == 1:
        report = build_shard(target, shard, options=options, progress=quiet(), render=nothing)
    else:
        report = build_shard(target, shard, options=options, progress=quiet(), render=render)
    assert report.complete and report.rendered == len(clips) and target.missing(clips) == []


def test_two_processes_of_one_shard_have_scratch_stores_of_their_own(target: Target, tmp_path: Path) -> None:
    with scratch_store(target, "shard-1-of-2", tmp_path) as one, scratch_store(target, "shard-1-of-2", tmp_path) as two:
        assert one.root != two.root
    with scratch_store(target, "shard-1-of-2", tmp_path) as again:
        assert again.root == one.root and not two.root.exists()


# --- the end -------------------------------------------------------------------------------------------------------------


def test_the_end_names_what_lacks_and_commits_nothing(target: Target, tmp_path: Path) -> None:
    scratch = Store(tmp_path / "scratch")
    for clip_id in fake_clips(target, scratch, 5):
        target.publish(scratch, target.keys[clip_id])
    target.write_heartbeat("shard-2-of-7", b"{}")
    target.write_heartbeat("ray-somewhere", b"{}")
    report = finish_target(target, message="m")
    assert not report.complete and report.version is None and report.count == 7
    assert len(report.missing) == len(PLAN.clips) - 5
    assert report.shards == tuple(shards_of(PLAN, 7, target.missing()))
    assert finish_target(target, message="m", shards=3).count == 3
    assert f"of {report.count}" in report.words() and report.missing[0] in report.words() and "\n" not in report.words()
    assert History(tmp_path / "store").refs.head() is None
    assert not (tmp_path / "store" / "labels.parquet").exists()


def test_the_end_sets_aside_records_that_are_damaged_or_lack_an_object(target: Target, tmp_path: Path) -> None:
    scratch = Store(tmp_path / "scratch")
    ids = fake_clips(target, scratch, len(PLAN.clips))
    for clip_id in ids:
        target.publish(scratch, target.keys[clip_id])
    assert target.missing() == []
    torn, objectless, short = ids[3], ids[8], ids[20]
    root = tmp_path / "store" / ".stopdown"
    overwrite(root / record_file(target.keys[torn]), b"half a rec")
    records = {clip_id: scratch.record(target.keys[clip_id]) for clip_id in (objectless, short)}
    (root / object_file(records[objectless].frames["0000.png"])).unlink()  # type: ignore[union-attr]
    overwrite(root / object_file(records[short].sha256_bytes), b"short")  # type: ignore[union-attr]
    report = finish_target(target, message="m")
    assert report.missing == (torn, objectless, short) and report.version is None
    assert set(report.set_aside) >= {objectless, short}
    assert "damaged" in report.words()
    assert [clip.clip_id for clip in target.missing()] == [torn, objectless, short]
    for clip_id in (torn, objectless, short):
        assert target.publish(scratch, target.keys[clip_id])
    assert target.missing() == []
    data = target.remote.read(object_file(records[short].sha256_bytes))  # type: ignore[union-attr]
    assert data is not None and sha256(data) == records[short].sha256_bytes  # type: ignore[union-attr]


def overwrite(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


# --- bad input -----------------------------------------------------------------------------------------------------------


def test_a_store_of_another_recipe_or_of_other_programs_is_refused_with_both_named(target: Target, tmp_path: Path) -> None:
    where = str(tmp_path / "store")
    with pytest.raises(InputError, match=r"another recipe.*seed is 11 there and 12 here"):
        open_target(where, farm_plan(RECIPE.replace("seed = 11", "seed = 12")), blender=BLENDER)
    with pytest.raises(InputError, match=r"Blender 5\.0\.1.*Blender 5\.0\.0"):
        open_target(where, PLAN, blender="5.0.0")
    claim = look_at(where).remote.read("farm.json")
    assert claim is not None
    FolderRemote(tmp_path / "store").overwrite("farm.json", checksummed_claim(claim, plan="0" * 64))
    for again in (lambda: open_target(where, PLAN, blender=BLENDER), lambda: claimed_target(where, PLAN)):
        with pytest.raises(InputError, match="same recipe, drawn by another version of Stopdown"):
            again()
    FolderRemote(tmp_path / "store").overwrite("farm.json", checksummed_claim(claim, stopdown="0.0.1"))
    for again in (lambda: open_target(where, PLAN, blender=BLENDER), lambda: claimed_target(where, PLAN)):
        with pytest.raises(InputError, match=r"Stopdown 0\.0\.1, this machine has Stopdown") as refusal:
            again()
        assert "\n" not in str(refusal.value) and refusal.value.exit_code == 2


def checksummed_claim(data: bytes, **changes: object) -> bytes:
    from generator.io.checksummed_json import checksummed, parse_checksummed

    return checksummed({**parse_checksummed(data, "farm.json"), **changes})


def test_a_part_that_lies_in_the_store_is_not_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "CLIPS_PER_PART", 20)
    where = str(tmp_path / "store")
    first = open_target(where, PLAN.recipe, blender=BLENDER)
    drawn = [first.part(number).plan for number in range(first.parts.count)]  # type: ignore[union-attr]
    assert [clip for part in drawn for clip in part.clips] == list(PLAN.clips) and len(drawn) > 3
    assert max(len(part.clips) for part in drawn) <= 20
    (tmp_path / "store" / ".stopdown" / parts.part_file(2)).unlink()
    overwrite(tmp_path / "store" / ".stopdown" / parts.part_file(1), b"half a par")
    seen = []
    draw = parts.RecipeSource.draw
    monkeypatch.setattr(parts.RecipeSource, "draw", lambda source, at, count: seen.append(at) or draw(source, at, count))
    again = open_target(where, PLAN.recipe, blender=BLENDER)
    plan = whole(again.parts)  # type: ignore[arg-type]
    assert plan == PLAN and plan.digest == PLAN.digest
    assert len(seen) == 2  # the one that was gone and the one that was torn
    assert look_at(where).keys == clip_keys(plan, BLENDER)  # whoever looks reads what lies there


def test_a_claim_of_an_earlier_recipe_of_the_folder_gives_way_to_the_one_that_was_built_since(tmp_path: Path) -> None:
    where, other = str(tmp_path / "store"), farm_plan(RECIPE.replace("seed = 11", "seed = 12"))
    open_target(where, other, blender=BLENDER)
    with pytest.raises(InputError, match="seed is 12 there and 11 here"):
        open_target(where, PLAN, blender=BLENDER)
    (tmp_path / "store" / ".stopdown" / "plan.json").write_text(PLAN.to_json())
    open_target(where, PLAN, blender=BLENDER)
    with pytest.raises(InputError, match="seed is 11 there and 12 here"):
        claimed_target(where, other)


def test_a_folder_that_one_machine_builds_is_taken_over_for_its_own_recipe_only(tmp_path: Path) -> None:
    (made(tmp_path / "store") / ".stopdown").mkdir()
    (tmp_path / "store" / ".stopdown" / "plan.json").write_text(PLAN.to_json())
    with pytest.raises(InputError, match="seed is 11 there and 12 here"):
        open_target(str(tmp_path / "store"), farm_plan(RECIPE.replace("seed = 11", "seed = 12")), blender=BLENDER)
    assert open_target(str(tmp_path / "store"), PLAN.recipe, blender=BLENDER).of == len(PLAN.clips)


def test_one_machine_goes_on_with_what_a_farm_began_in_its_folder(target: Target, tmp_path: Path) -> None:
    path = tmp_path / "store"
    fresh = Store(path / ".stopdown")
    with pytest.raises(InputError, match=r"another recipe.*seed is 11 there and 12 here"):
        create_or_resume(path, farm_plan(RECIPE.replace("seed = 11", "seed = 12")))
    scratch = Store(tmp_path / "scratch")
    (clip_id,) = fake_clips(target, scratch, 1)
    target.publish(scratch, target.keys[clip_id])
    create_or_resume(path, PLAN)
    assert fresh.finished(target.keys[clip_id]) and stored_plan(path) == PLAN


def test_a_store_of_an_earlier_format_is_refused_in_one_line(target: Target, tmp_path: Path) -> None:
    claim = target.remote.read("farm.json")
    assert claim is not None
    FolderRemote(tmp_path / "store").overwrite("farm.json", checksummed_claim(claim, format=1))
    with pytest.raises(InputError, match=r"has format 1, this Stopdown reads 2") as refusal:
        open_target(str(tmp_path / "store"), PLAN, blender=BLENDER)
    assert "\n" not in str(refusal.value) and refusal.value.exit_code == 2


class Overwriting(FolderRemote):
    """A store that takes a put for an overwrite, as some S3 servers do."""

    def put(self, path: str, data: bytes) -> bool:
        self.overwrite(path, data)
        return True


def test_a_store_that_overwrites_what_is_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match="cannot put conditionally"):
        target_at(Overwriting(made(tmp_path / "store")), PLAN, blender=BLENDER, retry=hasty())
    assert not (tmp_path / "store" / ".stopdown" / "farm.json").exists()


def test_many_workers_may_begin_at_once(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    where = str(tmp_path / "new" / "store")
    with ThreadPoolExecutor(8) as pool:
        targets = list(pool.map(lambda _: open_target(where, PLAN, blender=BLENDER), range(8)))
    assert len({target.plan.digest for target in targets}) == 1


def test_who_stops_asking_for_parts_does_not_wait_for_the_one_that_is_being_read() -> None:
    """The garbage collector closes what nobody asked to the end, and may do so while it holds a lock that the reader needs."""
    gate = threading.Event()

    def read(number: int) -> int:
        assert number == 0 or gate.wait()
        return number

    parts_ahead = prefetch(read, range(3))
    assert next(parts_ahead) == 0
    parts_ahead.close()
    gate.set()
