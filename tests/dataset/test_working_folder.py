"""The dataset folder: whose it is, what a finished one holds, and that finishing twice changes nothing."""

from __future__ import annotations

import hashlib
import multiprocessing
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from generator.errors import DamagedError
from generator.media.video import encode, frames_digest
from generator.recipe.load import parse_recipe
from generator.recipe.plan import Plan, make_plan
from generator.store.objects import ClipRecord, ReadingRecord, Store
from generator.versions.working.working_folder import WorkingFolder, build_lock, check_target, create_or_resume, finish
from scenes.errors import InputError

RECIPE = """
name = "tiny"
seed = 3
[video]
width = 64
height = 64
[[pyramid]]
axes = ["temperature"]
family = "tabletop"
layers = [3, 1]
scenes_per_layer = 1
frames = [5]
"""


def plan_of(*overrides: str) -> Plan:
    return make_plan(parse_recipe(RECIPE, source="tiny.toml", overrides=overrides))


def records_of(plan: Plan, store: Store) -> dict[str, ClipRecord]:
    """Store a clip of noise for every clip of a plan, as a render process would, and return the records."""
    records = {}
    for number, clip in enumerate(plan.clips):
        frames = np.random.default_rng(number).integers(0, 255, (clip.frames, 64, 64, 3), dtype=np.uint8)
        data = encode(frames, fps=16, crf=12, preset="medium")
        records[clip.clip_id] = ClipRecord(
            key=hashlib.sha256(clip.clip_id.encode()).hexdigest(),
            sha256_bytes=store.put(data),
            sha256_frames=frames_digest(frames),
            size_bytes=len(data),
            readings={"temperature": ReadingRecord(value=clip.values["temperature"] * 1.001, confidence=1.0)},
            blender="5.0.1",
            encoder="x264",
            cpu_s=0.1,
        )
    return records


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Path, Plan]:
    plan, path = plan_of(), tmp_path / "a dataset – ünïcode"
    store = create_or_resume(path, plan)
    finish(path, plan, records_of(plan, store))
    return path, plan


def test_a_finished_dataset_is_read_back(finished: tuple[Path, Plan]) -> None:
    path, plan = finished
    dataset = WorkingFolder.open(path)
    assert len(dataset) == 4
    assert dataset.labels.column("clip_id").to_pylist() == sorted(clip.clip_id for clip in plan.clips)
    clip = sorted(plan.clips, key=lambda clip: clip.clip_id)[1]
    assert dataset.frames(clip.clip_id).shape == (5, 64, 64, 3)
    assert (path / "clips" / f"{clip.clip_id}.txt").read_text() == clip.caption + "\n"
    row = dataset.labels.slice(1, 1).to_pylist()[0]
    assert row["temperature_k"] == clip.values["temperature"]
    assert row["temperature_measured"] == pytest.approx(clip.values["temperature"] * 1.001)
    assert "temperature" in (path / "README.md").read_text()


def test_every_column_says_what_it_means(finished: tuple[Path, Plan]) -> None:
    schema = pq.read_schema(finished[0] / "labels.parquet")
    assert all(field.metadata and field.metadata[b"description"] for field in schema)
    assert schema.metadata[b"stopdown_labels_format"] == b"1"


def test_finishing_twice_changes_no_byte_and_no_time(finished: tuple[Path, Plan]) -> None:
    path, plan = finished
    records = records_of(plan, create_or_resume(path, plan))
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in path.rglob("*") if file.is_file()}
    finish(path, plan, records)
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in path.rglob("*") if file.is_file()} == before


def test_clips_are_hard_links_to_read_only_objects(finished: tuple[Path, Plan]) -> None:
    path, plan = finished
    view = path / "clips" / f"{plan.clips[0].clip_id}.mp4"
    assert view.stat().st_nlink >= 2 and not view.stat().st_mode & 0o222


def test_whose_folder_it_is(finished: tuple[Path, Plan], tmp_path: Path) -> None:
    path, plan = finished
    assert check_target(path, plan) is True
    with pytest.raises(InputError, match=r"holds a dataset of another recipe \(seed is 3 there and 4 here\)"):
        check_target(path, plan_of("seed=4"))
    (path / "labels.parquet").unlink()
    with pytest.raises(InputError, match=r"holds an interrupted build of another recipe \(video.crf is 12 there and 20 here\)"):
        check_target(path, plan_of("video.crf=20"))
    with pytest.raises(InputError, match="not finished"):
        WorkingFolder.open(path)
    assert check_target(tmp_path / "new", plan) is False
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        check_target(tmp_path / "file", plan)


def test_a_damaged_or_newer_plan_is_said(finished: tuple[Path, Plan]) -> None:
    path, _ = finished
    file = path / ".stopdown" / "plan.json"
    text = file.read_text()
    for damage in (text[:100], "", "[]"):
        file.write_text(damage)
        with pytest.raises(DamagedError, match="damaged"):
            WorkingFolder.open(path)
    file.write_text(text.replace('"format":1', '"format":3', 1))
    with pytest.raises(InputError, match="dataset format 3"):
        WorkingFolder.open(path)


def test_objects_without_a_plan_are_not_built_over(finished: tuple[Path, Plan]) -> None:
    path, plan = finished
    (path / ".stopdown" / "plan.json").unlink()
    with pytest.raises(DamagedError, match=r"no plan\.json"):
        check_target(path, plan)


def test_a_lock_without_a_plan_is_a_build_that_was_killed_early(tmp_path: Path) -> None:
    with build_lock(tmp_path / "d"):
        pass
    assert check_target(tmp_path / "d", plan_of()) is False


def _hold(path: Path, ready: multiprocessing.synchronize.Event, done: multiprocessing.synchronize.Event) -> None:
    with build_lock(path):
        ready.set()
        done.wait(60)


def test_a_second_build_of_a_folder_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, ready, done))
    holder.start()
    try:
        assert ready.wait(60)
        with pytest.raises(InputError, match="another build"), build_lock(tmp_path):
            pass
    finally:
        holder.kill()  # a killed build must not leave the folder locked
        holder.join()
    with build_lock(tmp_path):
        pass
