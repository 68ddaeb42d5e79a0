"""Shards: every clip in one, balanced, stateless; in any order, repeated and killed, they give a single build's version."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest
import tiny
from blender_child import run_in_blender
from farm_support import (
    BLENDER,
    RECIPE,
    ROOT,
    farm_plan,
    hasty,
    parts_of,
    quiet,
    records_of,
    run_shards,
    shard_clips,
    shards_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.building.local import BuildReport, build
from generator.console.progress import JsonProgress
from generator.farm.finish import finish_target, ranges
from generator.farm.parts import Parts
from generator.farm.shard_build import ShardOptions, build_shard
from generator.farm.shards import Shard, deal, parse_shard, pieces
from generator.farm.target import look_at, open_target
from generator.recipe.estimate import finish_cpu_s, render_cpu_s
from generator.recipe.plan import ClipPlan, Plan
from generator.remotes.folder import FolderRemote
from generator.store.objects import ClipRecord
from generator.versions.commit import EPOCH
from generator.versions.history.history import History
from scenes.errors import InputError

PLAN = farm_plan()
SHARDS = 64
STATED_TIME = "1700000000"  # a version's id contains its time


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the dataset of a single build, committed."""
    path = tmp_path_factory.mktemp("single") / "one"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(EPOCH, STATED_TIME)
        report: BuildReport = build(PLAN, path, workers=1, threads=1, progress=quiet(), message="a build")
    assert report.complete
    return path


class Killed:
    """A real `stopdown build --shard` that is killed, with all its processes, when it has begun its `after`-th clip."""

    def __init__(self, recipe: Path, out: Path, shard: Shard, scratch: Path, after: int) -> None:
        words = ["build", recipe, "--out", out, "--shard", shard, "--workers", "1", "--scratch", scratch, "--json"]
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "stopdown.py"), *map(str, words)],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert process.stdout is not None
        begun = 0
        for line in process.stdout:
            begun += "rendering" in str(json.loads(line).get("state"))
            if begun == after:
                break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
        self.code = process.wait()


@pytest.mark.timeout(1800)  # it renders twice and starts Blender six times: minutes on a busy machine
def test_64_shards_in_any_order_some_twice_some_killed_give_the_version_of_a_single_build(
    single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EPOCH, STATED_TIME)
    rng = random.Random(8)
    out, scratch, recipe = tmp_path / "farm", tmp_path / "scratch", tmp_path / "farm.toml"
    recipe.write_text(RECIPE)
    scratch.mkdir()
    largest = sorted(range(1, SHARDS + 1), key=lambda index: -len(shard_clips(PLAN, Shard(index, SHARDS))))
    for number, index in enumerate(largest[:4]):
        killed = Killed(recipe, out, Shard(index, SHARDS), scratch, after=1 + number % 2)
        assert killed.code == -signal.SIGKILL
    order = [Shard(index, SHARDS) for index in range(1, SHARDS + 1)]
    order += rng.sample(order, 12)
    rng.shuffle(order)
    target = open_target(str(out), PLAN, blender=BLENDER)
    before = {clip_id: data for clip_id, data in records_of(target).items() if data}

    done = run_in_blender(run_shards, str(out), order, scratch)

    rendered = Counter({name: 0 for name, _, _ in done})
    for name, new, _ in done:
        rendered[name] += new
    sizes = {str(shard): len(shard_clips(PLAN, shard)) for shard in set(order)}
    assert sum(rendered.values()) == len(PLAN.clips) - len(before)  # each once, and none that was there
    assert all(rendered[name] <= size for name, size in sizes.items())
    assert {clip_id: records_of(target)[clip_id] for clip_id in before} == before  # the first result is the result
    report = finish_target(target, message="a build")
    assert report.complete and report.version is not None
    assert finish_target(target, message="a build").version == report.version
    one, farm = History(single), History(out)
    assert farm.version().content == one.version().content
    assert farm.version().id == one.version().id
    assert [path for path in scratch.rglob("*") if path.is_file() and path.suffix != ".lock"] == []
    frames = {clip_id: record.sha256_frames for clip_id, record in records_by_id(single).items()}
    assert {clip_id: record.sha256_frames for clip_id, record in records_by_id(out).items()} == frames
    for view in (single / "clips").iterdir():
        assert (out / "clips" / view.name).read_bytes() == view.read_bytes()


def records_by_id(path: Path) -> dict[str, ClipRecord]:
    """Return the records of a dataset's clips."""
    target = (
        look_at(str(path)) if (path / ".stopdown" / "farm.json").exists() else open_target(str(path), PLAN, blender=BLENDER)
    )
    found = {clip_id: target.record(key) for clip_id, key in target.keys.items()}
    return {clip_id: record for clip_id, record in found.items() if record is not None}


@given(count=st.integers(1, 300))
@settings(max_examples=30)
def test_shards_cover_the_plan_exactly_once_and_are_balanced(count: int) -> None:
    parts = parts_of(PLAN)
    dealt = deal(parts, count)
    clips_of = {piece: piece.clips(parts.part(piece.part)) for _, piece in dealt}
    ids = [clip.clip_id for clips in clips_of.values() for clip in clips]
    assert sorted(ids) == sorted(clip.clip_id for clip in PLAN.clips)
    loads = Counter(dict.fromkeys(range(1, count + 1), 0.0))
    for number, piece in dealt:
        loads[number] += piece.cost_s
    fair = sum(loads.values()) / count
    assert max(loads.values()) <= fair + max(piece.cost_s for piece in clips_of) + 1e-9
    by_render = {}
    for number, piece in dealt:
        assert piece.size(parts.keys(piece.part)) == len(clips_of[piece])
        for clip in clips_of[piece]:
            assert by_render.setdefault((clip.scene_id, clip.optics), number) == number  # one render, one shard
        whole = len({(clip.scene_id, clip.optics) for clip in clips_of[piece]}) > 1
        assert not whole or piece.cost_s <= fair / 8 + 1e-9
    assert deal(parts_of(Plan.from_json(PLAN.to_json())), count) == dealt  # on another machine
    assert deal(Parts(PLAN.recipe, FolderRemote(ROOT / "no-store"), hasty()), count) == dealt  # before it is drawn


def cost_s(plan: Plan, clips: list[ClipPlan]) -> float:
    """Return the estimated CPU seconds of one scene's clips; those with equal optics share a render."""
    recipe, first = plan.recipe, clips[0]
    renders = len({clip.optics for clip in clips})
    return renders * render_cpu_s(recipe, first.pyramid, first.frames) + len(clips) * finish_cpu_s(recipe, first.frames)


@given(
    layers=st.lists(st.integers(1, 4).map(lambda half: 2 * half + 1), min_size=1, max_size=3, unique=True),
    scenes=st.integers(1, 2),
    frames=st.sampled_from([[1], [1, 5], [9]]),
    axis=st.sampled_from([("aperture", "depth_row"), ("temperature", "tabletop"), ("shutter", "flyby")]),
    count=st.integers(1, 40),
)
@settings(max_examples=6)
def test_shards_of_random_recipes_cover_them_and_cost_what_their_clips_cost(
    layers: list[int], scenes: int, frames: list[int], axis: tuple[str, str], count: int
) -> None:
    text = f"""
name = "random"
seed = 3
[video]
width = 64
height = 64
[[pyramid]]
axes = ["{axis[0]}"]
family = ["{axis[1]}"]
layers = {layers}
scenes_per_layer = {scenes}
frames = {[length for length in frames if axis[0] != "shutter" or length > 1] or [5]}
"""
    plan = farm_plan(text)
    dealt = [shard_clips(plan, Shard(index, count)) for index in range(1, count + 1)]
    assert sorted(clip.clip_id for clips in dealt for clip in clips) == sorted(plan.clip_by_id)
    parts = parts_of(plan)
    for piece in pieces(parts, count):
        scenes = groupby(piece.clips(parts.part(piece.part)), key=lambda clip: clip.scene_id)
        assert piece.cost_s == pytest.approx(sum(cost_s(plan, list(clips)) for _, clips in scenes)) and piece.cost_s > 0
    missing_clips = dealt[0][:2]
    assert shards_of(plan, count, missing_clips) == ([1] if missing_clips else [])


@pytest.mark.parametrize("text", ["3/2", "0/4", "x", "", "1/0", "-1/4", "1/4/2", "1.5/3", "3", " 1/2", "1/99999999"])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--shard") as refusal:
        parse_shard(text)
    assert "\n" not in str(refusal.value)


def test_numbers_read_as_slurm_writes_them() -> None:
    assert ranges([3, 7, 8, 9, 12]) == "3,7-9,12"
    assert ranges([]) == ""


@pytest.mark.timeout(900)
def test_a_clip_that_fails_three_times_is_reported_and_the_rest_goes_on(tmp_path: Path) -> None:
    plan, said = tiny.plan(poison=1), io.StringIO()
    target = open_target(str(tmp_path / "store"), plan, blender=BLENDER)
    options = ShardOptions(workers=1, scratch=tmp_path)
    report = build_shard(target, Shard(1, 1), options=options, progress=JsonProgress(said))
    poisoned = [f"tiny-1-{index}" for index in range(3)]
    assert sorted(report.failed) == poisoned and not report.complete
    assert report.rendered == len(plan.clips) - 3
    assert [clip.clip_id for clip in target.missing()] == poisoned
    events = [json.loads(line) for line in said.getvalue().splitlines()]
    tries = Counter(event["message"].split()[1] for event in events if event["event"] == "note")
    assert tries == {f"{clip_id}:": 2 for clip_id in poisoned}  # tried twice more
    assert sum(event["event"] == "done" for event in events) == report.rendered
    assert finish_target(target, message="m").shards == (1,)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "farm.toml"
    path.write_text(RECIPE)
    return path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--shard", "3/2"], "there is no shard 3 of 2"),
        (["--shard", "x"], "--shard 'x'"),
        (["--shard", "1/2", "--finish"], "one of the two"),
        (["--engine", "ray", "--finish"], "leave out --shard and --finish"),
        (["--engine", "magic"], "local or ray"),
        (["--address", "1.2.3.4:5"], "--engine ray only"),
        (["--shards", "4"], "--finish"),
        (["--finish", "--shards", "0"], "give 1 or more"),
        (["--scratch", "x"], "leave them out"),
        (["--endpoint", "http://127.0.0.1:1"], "leave them out"),
        (["--finish"], "no farm builds at"),
        (["--shard", "1/2", "--workers", "0"], "at least one of each"),
        (["--shard", "1/2", "--time-limit", "0"], "more than 0"),
        (["--shard", "1/2", "--out", "ftp://host/x"], "no kind of remote"),
    ],
)
def test_options_that_make_no_sense_end_in_one_line(
    words: list[str],
    said: str,
    recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert said in refused(["build", str(recipe), *words], tmp_path, capsys, monkeypatch)


def refused(words: list[str], folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the command line in this process; return the line that it ends with."""
    import stopdown

    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["stopdown", *words])
    with pytest.raises(SystemExit) as end:
        stopdown.main()
    assert end.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith("stopdown: error: ") and line.count("\n") == 1, line
    return line


@pytest.fixture(autouse=True)
def no_scratch_left() -> Iterator[None]:
    """Hold that no test leaves the handler of SIGTERM changed."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    assert signal.getsignal(signal.SIGTERM) == before


RECIPE_OF_A_RUN = """
name = "run"
seed = 3
video = { width = 64, height = 64 }
pyramid = [{ axes = ["temperature"], family = ["tabletop"], layers = [1], scenes_per_layer = 2, frames = [1] }]
train = { steps = 5 }
evaluate = { controls = "-1..1:3" }
"""


def test_shards_of_a_recipe_that_also_says_how_to_train(tmp_path: Path) -> None:
    recipe, out = tmp_path / "run.toml", tmp_path / "farm"
    recipe.write_text(RECIPE_OF_A_RUN)
    for end in (["--shard", "1/2"], ["--shard", "2/2"], ["--shard", "1/2"], ["--finish"]):
        command = [sys.executable, "-m", "stopdown", "build", str(recipe), "--out", str(out), *end]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == 0, done.stderr
    assert len(list(History(out).log())) == 1
