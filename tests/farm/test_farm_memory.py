"""No process of a farm holds the plan: whatever the number of clips, a few parts of it are alive at a time."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from farm_support import BLENDER, RECIPE, farm_plan, made, quiet, whole

from generator.farm import missing as lookup
from generator.farm import parts
from generator.farm.finish import finish_target
from generator.farm.parts import RecipeSource, StoredParts
from generator.farm.ray.pending import MOST_RETRIES, PendingWork, missing_counts, one
from generator.farm.shard_build import ShardOptions, build_shard
from generator.farm.shards import Shard
from generator.farm.target import claimed_target, open_target
from generator.io.spill_map import SpillMap
from generator.monitor.watch_build import watch_build
from generator.recipe.load import parse_recipe
from generator.recipe.plan import Plan, SceneKeys, make_plan
from generator.recipe.schema import Recipe
from generator.render.messages import SceneJob
from generator.store.labels import label_table, labels_file
from generator.store.objects import ClipRecord, Store
from generator.store.record_keys import clip_keys

PLAN = farm_plan()
PARTS_ALIVE = 4  # the one at hand, the one ahead, and what is being read or written meanwhile


class Alive:
    """Counts the parts of plans that are alive, and the most that were at once."""

    def __init__(self) -> None:
        self.now = self.most = self.made = 0

    def seen(self, part: Plan | None) -> Plan | None:
        """Count a part from now until it is collected."""
        if part is not None:
            self.made += 1
            self.now += 1
            self.most = max(self.most, self.now)
            weakref.finalize(part, self._gone)
        return part

    def _gone(self) -> None:
        self.now -= 1


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> Alive:
    """Cut plans into many small parts, and count those that are alive."""
    counter = Alive()
    read, draw = StoredParts._parsed, RecipeSource.draw
    monkeypatch.setattr(StoredParts, "_parsed", lambda *arguments: counter.seen(read(*arguments)))
    monkeypatch.setattr(RecipeSource, "draw", lambda *arguments: counter.seen(draw(*arguments)))
    monkeypatch.setattr(parts, "CLIPS_PER_PART", 5)
    gc.collect()
    return counter


def rendered(settings: Any, options: Any, jobs: Iterable[SceneJob], progress: Any, on_done: Any) -> dict[str, str]:
    """Stand for a renderer: every clip is a few bytes."""
    store = Store(settings.store)
    for job in jobs:
        for clip in job.clips:
            data = store.put(clip.key.encode())
            base = {"sha256_bytes": data, "sha256_frames": data, "size_bytes": 64, "blender": "b", "encoder": "e", "cpu_s": 1.0}
            readings = {axis: {"value": value, "confidence": 1.0} for axis, value in clip.values.items()}
            store.put_record(ClipRecord.model_validate({"key": clip.key, "readings": readings, **base}))
            on_done(clip.clip_id, 1.0)
    return {}


@pytest.fixture(params=[2, 10**6], ids=["listed", "asked"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return where a farm builds; records are looked for by lists, as for a large plan, or one by one."""
    monkeypatch.setattr(lookup, "LISTED_FROM", request.param)
    monkeypatch.setattr("generator.monitor.watch_build.LISTED_FROM", request.param)
    return str(tmp_path / "store")


def shard(store: str, scratch: Path, index: int = 1, count: int = 1) -> tuple[int, int]:
    options = ShardOptions(scratch=scratch, unpublished=2)
    target = open_target(store, PLAN.recipe, blender=BLENDER)
    report = build_shard(target, Shard(index, count), options=options, progress=quiet(), render=rendered)
    assert report.complete
    return report.rendered, report.reused


def test_no_role_of_a_farm_holds_more_than_a_few_parts_of_the_plan(store: str, tmp_path: Path, alive: Alive) -> None:
    scratch, clips = made(tmp_path / "scratch"), len(PLAN.clips)
    target = open_target(store, PLAN.recipe, blender=BLENDER)
    assert target.parts is not None and target.parts.count > 3 * PARTS_ALIVE
    assert finish_target(target, message=None).missing_clips == clips and alive.made == 0  # what no one has begun is not drawn

    one_of, _ = shard(store, scratch, 1, 2)
    watch = watch_build(store)
    assert watch.look().done == one_of
    halfway = finish_target(target, message=None, shards=2)
    assert (halfway.missing_clips, halfway.shards) == (clips - one_of, (2,))
    assert shard(store, scratch, 1, 2) == (0, one_of)
    assert shard(store, scratch) == (clips - one_of, one_of)
    assert watch.look().state == "complete"
    assert shard(store, scratch) == (0, clips)
    assert alive.most <= PARTS_ALIVE < target.parts.count and alive.now == 0

    report = finish_target(target, message="m")
    assert report.complete and report.version is not None and alive.most <= PARTS_ALIVE
    kept = Store(Path(store) / ".stopdown")
    records = {clip_id: kept.finished(key) for clip_id, key in clip_keys(PLAN, BLENDER).items()}
    assert (Path(store) / "labels.parquet").read_bytes() == labels_file(label_table(PLAN, records))  # type: ignore[arg-type]
    assert (Path(store) / ".stopdown" / "plan.json").read_text() == PLAN.to_json()


def test_a_driver_of_a_cluster_holds_a_few_parts_and_what_its_slots_do(store: str, alive: Alive) -> None:
    target = open_target(store, PLAN.recipe, blender=BLENDER)
    work = PendingWork(target, missing_counts(target))
    assert work.left == len(PLAN.clips) and alive.made == 0
    seen = []
    for job in iter(work.take, None):
        for clip in job.clips:
            seen.append(clip.clip_id)
            work.finish(clip.clip_id)
    assert sorted(seen) == sorted(PLAN.clip_by_id) and work.left == 0
    assert alive.most <= PARTS_ALIVE
    assert sum(missing_counts(target).values()) == len(PLAN.clips)  # nothing was put


def test_clips_that_fail_do_not_pile_up_in_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("generator.farm.ray.pending.MOST_RETRIES", 3)
    target = open_target(str(tmp_path / "store"), PLAN, blender=BLENDER)
    work = PendingWork(target, missing_counts(target))
    most = 0
    while work.left:
        job = work.take()
        assert job is not None
        for clip in job.clips:
            work.fail(one(job, clip), "it failed")
        most = max(most, len(work._retries))
    assert len(work.failed) == len(PLAN.clips) and MOST_RETRIES > 3
    assert most <= 3 + max(len(scene.clip_ids) for scene in PLAN.scenes)


def test_what_others_put_meanwhile_is_not_handed_out(tmp_path: Path) -> None:
    target = open_target(str(tmp_path / "store"), PLAN.recipe, blender=BLENDER)
    work = PendingWork(target, missing_counts(target))
    done, _ = shard(str(tmp_path / "store"), made(tmp_path / "scratch"), 1, 3)
    assert sum(len(job.clips) for job in iter(work.take, None)) == work.left == len(PLAN.clips) - done


def test_a_shard_takes_over_what_one_machine_built(tmp_path: Path) -> None:
    path, scratch = tmp_path / "store", made(tmp_path / "scratch")
    shard(str(path), scratch, 1, 2)
    (path / ".stopdown" / "plan.json").write_text(PLAN.to_json())
    for left in [path / ".stopdown" / "farm.json", *(path / ".stopdown" / "plan").iterdir()]:
        left.unlink()  # as if one machine had built so far
    new, reused = shard(str(path), scratch)
    assert new + reused == len(PLAN.clips) and new > 0 < reused
    assert finish_target(claimed_target(str(path), PLAN.recipe), message="m").complete


def test_drawing_part_by_part_gives_the_plan_and_its_digest(tmp_path: Path, alive: Alive) -> None:
    target = open_target(str(tmp_path / "store"), PLAN.recipe, blender=BLENDER)
    drawn = [target.part(number) for number in reversed(range(target.parts.count))]  # type: ignore[union-attr]
    plan = whole(target.parts)  # type: ignore[arg-type]
    assert plan == PLAN == make_plan(PLAN.recipe) and "".join(target.parts.text()) == PLAN.to_json()  # type: ignore[union-attr]
    assert {clip_id: key for part in drawn for clip_id, key in part.keys.items()} == dict(target.keys)
    for clip, media_key in plan.media_keys():
        assert media_key == plan.media_key(clip)


def test_scene_keys_are_those_of_the_drawn_plan() -> None:
    keys = SceneKeys(PLAN.recipe)
    assert [key.scene_id for key in keys] == [scene.scene_id for scene in PLAN.scenes]
    assert [key.clip_ids for key in keys] == [scene.clip_ids for scene in PLAN.scenes]
    assert len(keys) == len(PLAN.scenes)
    with pytest.raises(IndexError):
        keys[len(keys)]


def test_a_plan_of_a_million_clips_is_cut_without_holding_its_scenes() -> None:
    recipe = million()
    firsts, clips = parts.cut(SceneKeys(recipe))
    assert clips == 10**6 and len(firsts) == pytest.approx(clips / 250) and firsts.itemsize * len(firsts) < 40_000  # type: ignore[attr-defined]


def million() -> Recipe:
    scenes = {"scenes_per_layer = 3": "scenes_per_layer = 100000", "layers = [9, 7, 3]": "layers = [10]"}
    text = RECIPE
    for old, new in scenes.items():
        text = text.replace(old, new)
    return parse_recipe(text.partition('[[pyramid]]\naxes = ["temperature"]')[0], source="million.toml")


def test_a_map_on_the_disk_is_a_mapping_in_order() -> None:
    with SpillMap() as map_:
        map_.put((f"{number:05d}", number) for number in reversed(range(3000)))
        map_.put([("00007", "seven")])
        assert len(map_) == 3000 and map_["00007"] == "seven" and "x" not in map_ and map_.get("x") is None
        assert [key for key, _ in map_.after("0000")] == [f"{number:05d}" for number in range(10)]
        assert list(map_) == [f"{number:05d}" for number in range(3000)]
        with pytest.raises(KeyError):
            map_["x"]
