"""`stopdown run` end to end on a micro recipe: from nothing to a report, killed and taken up, skipped by digest."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainer.run.compare import differing, summarise
from trainer.run.stages import read_state

pytestmark = pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="a run builds its dataset with Blender")

RECIPE = """
name = "micro"
seed = 3

[video]
width = 64
height = 64

[[pyramid]]
axes = ["temperature"]
family = ["tabletop"]
layers = [3, 1]
scenes_per_layer = 1
frames = [5]

[train]
steps = 3
batch_size = 2
accumulation = 1
seed = 1
precision = "no"
trackers = []

[train.backbone]
name = "tiny-random"
dtype = "float32"
text_max_length = 16

[train.checkpoints]
every = 1

[train.validation]
every = 0

[evaluate]
prompts = ["a red cube stands on a grey tabletop", "a blue sphere rests on a white floor"]
controls = "-1,1"
modes = ["decoupled", "backbone_only"]
text_baseline = false
features = ["tiny"]
fast = false
frames = 5
width = 32
height = 32
steps = 1
guidance = 1.0
text_tokens = 16
"""
STAGES = ["build", "verify", "version", "train", "generate", "evaluate", "report"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def start(root: Path, cache: Path, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "stopdown", "run", "recipe.toml", "--workers", "1", *words],
        cwd=root,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish(root: Path, cache: Path, *words: str) -> str:
    process = start(root, cache, *words)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A finished run."""
    root = tmp_path_factory.mktemp("whole")
    (root / "recipe.toml").write_text(RECIPE)
    output = finish(root, cache)
    assert "report.html" in output
    return root


def made(root: Path) -> dict[str, dict[str, str]]:
    return {name: record.made for name, record in read_state(root / "runs/micro/001").stages.items()}


def test_a_run_leaves_everything_to_see_and_repeat_it(whole: Path) -> None:
    folder = whole / "runs/micro/001"
    assert list(made(whole)) == STAGES
    assert (folder / "recipe.toml").read_text() == RECIPE
    assert (folder / "report.html").stat().st_size > 10_000
    assert json.loads((folder / "verify.json").read_text())["passed"]
    assert json.loads((folder / "evaluation/report.json").read_text())["axes"] == ["temperature"]
    assert (
        json.loads((folder / "train/adapter/control.json").read_text())["dataset_version"] == made(whole)["version"]["version"]
    )


def test_nothing_is_done_twice(whole: Path, cache: Path) -> None:
    before = made(whole)
    times = {path: path.stat().st_mtime_ns for path in (whole / "runs").rglob("*.mp4")}
    output = finish(whole, cache)
    assert all(f"{stage}: kept" in output for stage in STAGES)
    assert made(whole) == before
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_changed_training_is_done_again_on_the_same_dataset(whole: Path, cache: Path, tmp_path: Path) -> None:
    root = tmp_path / "changed"
    shutil.copytree(whole, root)
    output = finish(root, cache, "--set", "train.steps=4", "--until", "train")
    assert "build: kept" in output
    assert "train: begins (changed: settings" in output
    assert made(root)["version"] == made(whole)["version"]
    assert made(root)["train"] != made(whole)["train"]


def test_a_damaged_result_is_said_and_made_again(whole: Path, cache: Path, tmp_path: Path) -> None:
    root = tmp_path / "damaged"
    shutil.copytree(whole, root)
    report = root / "runs/micro/001/evaluation/report.json"
    report.write_text(report.read_text()[:-40])
    output = finish(root, cache)
    assert "evaluate: damaged" in output
    assert "train: kept" in output
    assert json.loads(report.read_text())["axes"] == ["temperature"]


def test_runs_lists_what_differs(whole: Path, cache: Path, tmp_path: Path) -> None:
    root = tmp_path / "two"
    shutil.copytree(whole, root)
    finish(root, cache, "--new", "--set", "train.seed=2", "--until", "version")
    runs = [summarise(root / "runs/micro" / run) for run in ("001", "002")]
    assert differing(runs) == ["train.seed"]
    assert runs[0].results["steps"] == 3
    assert runs[1].stage == "version"


@pytest.mark.parametrize("stage", ["build", "train", "generate"])
def test_killed_in_a_stage_and_run_again_the_result_is_the_same(whole: Path, cache: Path, tmp_path: Path, stage: str) -> None:
    root = tmp_path / stage
    root.mkdir()
    (root / "recipe.toml").write_text(RECIPE)
    if stage != "build":
        shutil.copytree(whole / "datasets", root / "datasets")
    process = start(root, cache)
    marks = {
        "build": lambda: any((root / "datasets/micro/.stopdown/records").rglob("*.json")),
        "train": lambda: (root / "runs/micro/001/train/checkpoint-1").is_dir(),
        "generate": lambda: any((root / "runs/micro/001/evaluation").rglob("*.mp4")),
    }
    deadline_s = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline_s and not marks[stage]():
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finish(root, cache)
    theirs, ours = made(whole), made(root)
    assert ours["version"] == theirs["version"] or ours["build"].keys() == theirs["build"].keys()
    assert (
        ours["train"]["train/adapter/control_adapter.safetensors"]
        == theirs["train"]["train/adapter/control_adapter.safetensors"]
    )
    assert ours["generate"].keys() == theirs["generate"].keys()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("[train]", "[training]"), "unknown key 'training'"),
        (("steps = 3\n", 'steps = 3\ndataset = "x"\n'), "train.dataset cannot be set in a run"),
        (('features = ["tiny"]', 'features = ["clap"]'), "is no extractor"),
        (("[train]\n", '[train]\nadapter.axes = ["shutter"]\n'), "which no pyramid varies"),
    ],
)
def test_bad_recipes_are_one_line(tmp_path: Path, cache: Path, change: tuple[str, str], words: str) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE.replace(*change, 1))
    process = start(tmp_path, cache)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert words in output
    assert len(output.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_folder_of_another_recipe_is_refused(whole: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    shutil.copytree(whole / "runs", tmp_path / "runs")
    facts = tmp_path / "runs/micro/001/run.json"
    facts.write_text(facts.read_text().replace('"micro"', '"other"'))
    process = start(tmp_path, cache, "--run", "001")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "is a run of recipe 'other', not of 'micro'" in output


def test_the_dry_run_touches_nothing(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    output = finish(tmp_path, cache, "--dry-run")
    assert "4 clips" in output
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]
