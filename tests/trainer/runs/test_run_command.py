"""`stopdown run` end to end on a micro recipe: from nothing to a report, killed in every stage, skipped by digest."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from run_support import RECIPE, Started, finished

from generator.io.checked_model import checked
from scenes.errors import InputError
from trainer.runs.run_folder import read_facts
from trainer.runs.run_recipe import load_run_recipe
from trainer.runs.side_by_side import differing, summarise
from trainer.runs.stage_runner import read_state

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="a run builds its dataset with Blender"),
    pytest.mark.timeout(1800),  # several processes that load Blender or torch, on a machine that may be busy
]

STAGES = ["build", "verify", "version", "train", "generate", "evaluate", "report"]
RUN = Path("runs/micro/001")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A finished run; do not change it."""
    root = tmp_path_factory.mktemp("whole")
    (root / "recipe.toml").write_text(RECIPE)
    said = finished(root, cache, "run", "recipe.toml", "--workers", "1")
    assert "report.html" in said and "temperature: " in said, "it says where the report is and what it found"
    return root


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be changed."""
    shutil.copytree(whole, tmp_path / "copy", copy_function=shutil.copy2)
    return tmp_path / "copy"


def run(root: Path, cache: Path, *words: str, code: int = 0) -> str:
    return finished(root, cache, "run", "recipe.toml", "--workers", "1", *words, code=code)


def made(root: Path) -> dict[str, dict[str, str]]:
    return {name: record.made for name, record in read_state(root / RUN).stages.items()}


def results(root: Path) -> dict[str, Any]:
    """Return what a run came to, without when and in how long; the folder it lay in is no part of it."""
    report = json.loads((root / RUN / "evaluation/report.json").read_text())
    rows = pq.read_table(root / "datasets/micro/labels.parquet").to_pylist()
    return {
        "clips": sorted((row["clip_id"], row["sha256_frames"]) for row in rows),
        "weights": {name: digest for name, digest in made(root)["train"].items() if name.endswith(".safetensors")},
        "videos": made(root)["generate"]["videos"],
        "numbers": {key: report[key] for key in ("accuracy", "leakage", "consistency", "svp", "flicker", "sweeps", "verdict")},
    }


def test_a_run_leaves_everything_to_see_and_repeat_it(whole: Path) -> None:
    folder = whole / RUN
    assert list(made(whole)) == STAGES
    assert (folder / "recipe.toml").read_text() == RECIPE
    assert (folder / "report.html").stat().st_size > 10_000
    assert json.loads((folder / "verify.json").read_text())["passed"]
    assert json.loads((folder / "evaluation/report.json").read_text())["axes"] == ["temperature"]
    control = json.loads((folder / "train/adapter/control.json").read_text())
    assert control["dataset_version"] == made(whole)["version"]["version"]
    assert "Measured control" in (folder / "train/adapter/README.md").read_text()


def test_nothing_is_done_twice(whole: Path, cache: Path) -> None:
    before = made(whole)
    times = {path: path.stat().st_mtime_ns for path in (whole / "runs").rglob("*.mp4")}
    said = run(whole, cache)
    assert all(f"{stage}: kept" in said for stage in STAGES)
    assert made(whole) == before
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_changed_training_is_done_again_on_the_same_dataset(whole: Path, copy: Path, cache: Path) -> None:
    said = run(copy, cache, "--set", "train.steps=3", "--until", "generate")
    assert "build: kept" in said
    assert "train: begins (changed: settings" in said
    assert "generate: begins (changed: adapter" in said
    assert made(copy)["version"] == made(whole)["version"]
    assert made(copy)["train"] != made(whole)["train"]
    assert "generate: done" in said, "videos of the adapter before are replaced, not refused"


def test_damaged_results_are_said_and_made_again(whole: Path, copy: Path, cache: Path) -> None:
    weights, numbers, page = (copy / RUN / name for name in (
        "train/adapter/control_adapter.safetensors", "evaluation/report.json", "report.html"))  # fmt: skip
    weights.write_bytes(weights.read_bytes()[:-40])
    numbers.write_text(numbers.read_text()[:-40])
    page.unlink()
    said = run(copy, cache)
    for stage in ("train", "evaluate"):
        assert f"{stage}: damaged" in said and f"{stage}: done" in said
    assert "report: begins (changed: evaluate)" in said and page.is_file()
    for stage in ("build", "verify", "version", "generate"):
        assert f"{stage}: kept" in said
    assert results(copy) == results(whole)


def test_runs_lists_what_differs(copy: Path, cache: Path) -> None:
    run(copy, cache, "--new", "--set", "train.seed=2", "--until", "version")
    runs = [summarise(copy / "runs/micro" / name) for name in ("001", "002")]
    assert differing(runs) == ["train.seed"]
    assert runs[0].results["steps"] == 2
    assert runs[1].stage == "version"


def test_killed_in_every_stage_the_result_is_the_same(whole: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    inside: dict[str, Callable[[], bool]] = {  # a stage that takes time is killed in the middle, another as it begins
        "build": lambda: any((tmp_path / "datasets/micro/.stopdown/records").rglob("*.json")),
        "train": lambda: (tmp_path / RUN / "train/checkpoint-1").is_dir(),
        "generate": lambda: any((tmp_path / RUN / "evaluation").rglob("*.mp4")),
    }
    for stage in STAGES:
        started = Started(tmp_path, cache, "run", "recipe.toml", "--workers", "1", hold=stage)
        started.kill_when(inside.get(stage, lambda: f"{stage}: begins" in started.said))  # noqa: B023
        assert f"{stage}: done" not in started.said
        started.log.unlink()
    run(tmp_path, cache)
    assert results(tmp_path) == results(whole)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("[train]", "[training]"), "unknown key 'training'"),
        (("steps = 2\n", 'steps = 2\ndataset = "x"\n'), "train.dataset cannot be set in a run"),
        (('features = ["tiny"]', 'features = ["clap"]'), "is no extractor"),
        (("[train]\n", '[train]\nadapter.axes = ["shutter"]\n'), "which no pyramid varies"),
        (("[train]\n", '[train]\nadapter.arm = "lora_only"\n'), "`stopdown run` trains a control"),
        (("[train]\n", '[train]\nadapter.arm = "adapter_only"\n'), "'decoupled', which needs a LoRA"),
        (("[evaluate]\n", '[evaluate]\naxes = ["aperture"]\n'), "'aperture', and the adapter learns temperature"),
        (("fep = false", "fep = true"), "1 prompts are too few for a Fréchet distance; give at least 8"),
        (("[evaluate]\n", '[evaluate]\naxis_prompts.shutter = ["a"]\n'), "prompts and axis_prompts were given"),
        (('prompts = ["a red cube stands on a grey tabletop"]', 'axis_prompts.shutter = ["a"]'), "none for 'temperature'"),
        (("[train]\n", '[train]\nmethod = "vae"\n'), "train.method is 'vae'"),
        (("width = 64\n", "width = 66\n"), "66x64 does not fit this backbone"),
    ],
)
def test_a_bad_recipe_is_one_line(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    assert change[0] in RECIPE
    (tmp_path / "recipe.toml").write_text(RECIPE.replace(*change, 1))
    with pytest.raises(InputError) as refused:
        load_run_recipe(tmp_path / "recipe.toml")
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_prompts_may_be_given_by_axis(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE.replace("prompts = ", "axis_prompts.temperature = ", 1))
    loaded = load_run_recipe(tmp_path / "recipe.toml")
    assert loaded.evaluate.axis_prompts == {"temperature": ("a red cube stands on a grey tabletop",)}


def test_bad_input_ends_with_exit_code_2_before_anything_is_made(whole: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE.replace("[train]", "[training]", 1))
    said = run(tmp_path, cache, code=2)
    assert "unknown key 'training'" in said and len(said.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]
    (tmp_path / "recipe.toml").write_text(RECIPE)
    shutil.copytree(whole / "runs", tmp_path / "runs")
    facts = tmp_path / RUN / "run.json"
    facts.write_bytes(checked(read_facts(tmp_path / RUN).model_copy(update={"name": "other"})))
    assert "is a run of recipe 'other', not of 'micro'" in run(tmp_path, cache, "--run", "001", code=2)


def test_the_dry_run_tells_time_and_disk_and_touches_nothing(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    said = run(tmp_path, cache, "--dry-run")
    assert "3 clips" in said and "MB" in said and "time is known for backbone tiny only" in said
    said = run(tmp_path, cache, "--dry-run", "--set", "train.backbone.name=tiny")
    assert "in all about" in said and "on one core" in said
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]


def test_a_comparison_is_runs_and_a_report_on_all_of_them(whole: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(
        RECIPE.replace("seed = 1\n", "").replace("[train]", '[compare]\nfidelity = ["flat"]\nseeds = [1, 2]\n[train]', 1)
    )
    shutil.copytree(whole / "datasets/micro", tmp_path / "datasets/micro-flat", copy_function=shutil.copy2)
    first = run(tmp_path, cache, "--cell", "flat-1")
    assert "flat-1 build: done" in first and "no comparison yet: flat-2 are not evaluated" in first
    said = run(tmp_path, cache)
    assert "flat-1 train: kept" in said and "flat-2 train: done" in said and "prior kept: " in said
    found = json.loads((tmp_path / "runs/micro/comparison.json").read_text())
    assert found["seeds"] == [1, 2] and {row["arm"] for row in found["rows"]} == {"decoupled", "backbone_only"}
    assert (tmp_path / "runs/micro/report.html").stat().st_size > 10_000
    assert [summary.parent.name for summary in sorted((tmp_path / "runs/micro").rglob("run.json"))] == ["flat-1", "flat-2"]
    written = finished(tmp_path, cache, "report", "page.md", "--comparison", "runs/micro")
    assert "prior kept: " in written and "| flat | decoupled |" in (tmp_path / "page.md").read_text()


@pytest.mark.parametrize("name", ["demo", "tiny_shutter", "tiny_aperture", "tiny_temperature"])
def test_the_shipped_runs_read(name: str) -> None:
    loaded = load_run_recipe(Path(__file__).parents[3] / "examples" / f"{name}.toml")
    assert loaded.train(Path(), "latest", Path()).backbone.name == "tiny", "what a person sees by default is on the bundled one"
    assert not set(loaded.evaluate.prompts) & {clip.caption for clip in loaded.plan().clips}, "prompts are held out"
