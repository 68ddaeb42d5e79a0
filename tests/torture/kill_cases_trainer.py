"""The trainer's work that is killed: adapters and checkpoints, what is made of them, and whole runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from kill_cases import digest
from kills import ROOT, STATED_TIME, Case

CACHE = {"XDG_CACHE_HOME": "{}/cache"}
SMALL = ["--width", "32", "--height", "32", "--frames", "5", "--steps", "1", "--text-tokens", "12"]
PREPARE_S = 600
RUN = ["run", "recipe.toml", "--workers", "1"]


def nothing(path: Path) -> None:
    """Begin with an empty folder."""


def adapter(path: Path) -> None:
    """Save an adapter, which another is to replace."""
    from torch_work import save

    save([str(path / "a"), "1", "1"])


def adapter_outcome(folder: Path) -> dict[str, Any]:
    """Return the bytes of an adapter that can be attached, and all that lies beside it."""
    from trainer_support import tiny_transformer

    from trainer.adapters.folder import attach_saved
    from trainer.adapters.saved import SavedAdapter

    saved = SavedAdapter.open(folder / "a")
    attach_saved({"transformer": tiny_transformer()}, saved)
    files = {path.relative_to(folder).as_posix(): digest(path) for path in folder.rglob("*") if path.is_file()}
    return {"step": saved.card.step, "files": files, "folders": sorted(path.name for path in folder.iterdir())}


def adapter_sound(folder: Path) -> list[str]:
    """Return what is wrong with an adapter in the place of one: either it is whole, or it is not there yet."""
    from trainer_support import tiny_transformer

    from trainer.adapters.folder import attach_saved
    from trainer.adapters.saved import SavedAdapter

    if (folder / "a").exists():
        attach_saved({"transformer": tiny_transformer()}, SavedAdapter.open(folder / "a"), allow_other_backbone=True)
    return []


def kept_sound(folder: Path) -> list[str]:
    """Return what is wrong where an adapter is replaced: one must be there at any instant."""
    return adapter_sound(folder) if (folder / "a").exists() else ["no adapter where one was"]


def trained(folder: Path) -> dict[str, Any]:
    """Return a training's log, checkpoints and result."""
    from trainer.training.checkpoints.checkpoint import read_latest

    last = read_latest(folder / "run")
    assert last is not None
    parts = {name: tensor.numpy().tobytes() for name, tensor in last.parameters.items()}
    files = {path.relative_to(folder).as_posix(): digest(path) for path in folder.rglob("*") if path.is_file()}
    return {"step": last.step, "parameters": parts, "files": files}


def staged(folder: Path) -> dict[str, Any]:
    """Return what a run's state says of its stages, but for their times, its settings, and its files."""
    from trainer.runs.side_by_side import summarise
    from trainer.runs.stage_runner import read_state

    state = read_state(folder / "run")
    told = {name: record.model_dump(exclude={"wall_s"}) for name, record in state.stages.items()}
    files = {path.name: digest(path) for path in (folder / "run").iterdir() if path.name != "state.json"}
    return {"state": told, "files": files, "settings": summarise(folder / "run").settings}


def stages_sound(folder: Path) -> list[str]:
    """Return which stages say they are done and are not."""
    from trainer.runs.stage_runner import read_state

    state = read_state(folder / "run") if (folder / "run").is_dir() else None
    names = [] if state is None else state.stages
    return [f"{name} is said to be done and is not" for name in names if not (folder / "run" / name).is_file()]


def training() -> list[Case]:
    """Return the trainer's writers."""
    more = {"server": "training"}
    return [
        Case(name="adapter", prepare=nothing, words=["{}/a", "2", "0"], work="torch_work:save",
             outcome=adapter_outcome, sound=adapter_sound, **more),
        Case(name="adapter over another", prepare=adapter, words=["{}/a", "2", "0"], work="torch_work:save",
             outcome=adapter_outcome, sound=kept_sound, **more),
        Case(name="checkpoints", prepare=nothing, words=["{}/run"], work="torch_work:train", outcome=trained, **more),
        Case(name="stages", prepare=nothing, words=["{}/run"], work="torch_work:stages", outcome=staged,
             sound=stages_sound, **more),
    ]  # fmt: skip


def a_checkpoint(path: Path) -> None:
    """Write a checkpoint that holds an adapter."""
    from torch_work import checkpoint_of

    checkpoint_of(path / "run")


def adapters(path: Path) -> None:
    """Make the tiny backbone and adapters for it."""
    from torch_work import adapters_of

    adapters_of(path)


def files_of(folder: Path) -> dict[str, Any]:
    """Return every file."""
    return {path.relative_to(folder).as_posix(): digest(path) for path in folder.rglob("*") if path.is_file()}


def made_of_adapters() -> list[Case]:
    """Return the commands that make something new of an adapter."""
    more: dict[str, Any] = {
        "prepare": adapters,
        "outcome": files_of,
        "environ": CACHE,
        "server": "run",
        "refused": "exists; give",
    }
    adapter = ["adapter", "convert", "{}/a"]
    video = ["generate", "--adapter", "{}/a", "--prompt", "a red ball", "--out", "{}/videos", "--shutter", "1/50", *SMALL]
    return [
        Case(
            name="adapter extract",
            words=["adapter", "extract", "{}/run/checkpoint-3", "{}/out"],
            **{**more, "prepare": a_checkpoint, "server": "training"},
        ),
        Case(name="convert to published", words=[*adapter, "{}/out.safetensors", "--to", "published"], long_only=True, **more),
        Case(name="convert to comfyui", words=[*adapter, "{}/out.safetensors", "--to", "comfyui"], long_only=True, **more),
        Case(
            name="convert to a folder",
            words=["adapter", "convert", "{}/a.safetensors", "{}/out", "--to", "diffusers", "--backbone", "tiny-random"],
            long_only=True,
            **more,
        ),
        Case(name="adapter merge", words=["adapter", "merge", "{}/a", "--out", "{}/merged"], long_only=True, **more),
        Case(name="generate", words=video, long_only=True, **more),
        Case(
            name="backbone tiny-random",
            words=["adapter", "merge", "{}/a", "--out", "{}/merged"],
            long_only=True,
            **{**more, "prepare": without_backbone},
        ),
    ]


def without_backbone(path: Path) -> None:
    """Make an adapter for the tiny backbone, which has to be built again."""
    adapters(path)
    shutil.rmtree(path / "cache")


def run_recipe(path: Path) -> None:
    """Write the recipe of a micro run."""
    from run_support import RECIPE

    (path / "recipe.toml").write_text(RECIPE)


def frozen(path: Path) -> None:
    """Run up to the version that is to be trained on."""
    run_recipe(path)
    ran(path, "--until", "version")


def ran(path: Path, *words: str) -> None:
    """Run in a folder."""
    environ = {**os.environ, "XDG_CACHE_HOME": str(path / "cache"), "SOURCE_DATE_EPOCH": STATED_TIME, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", "stopdown", *RUN, *words]
    environ["PYTHONPATH"] = str(ROOT)
    subprocess.run(command, cwd=path, env=environ, check=True, timeout=PREPARE_S, capture_output=True, start_new_session=True)


def run_outcome(folder: Path) -> dict[str, Any]:
    """Return what a run came to, without when and in how long."""
    from trainer.runs.stage_runner import read_state

    run = folder / "runs/micro/001"
    report = json.loads((run / "evaluation/report.json").read_text())
    rows = pq.read_table(folder / "datasets/micro/labels.parquet").to_pylist()
    made = {name: record.made for name, record in read_state(run).stages.items()}
    numbers = ("accuracy", "leakage", "consistency", "svp", "flicker", "sweeps", "verdict")
    return {
        "stages": list(made),
        "clips": sorted((row["clip_id"], row["sha256_frames"]) for row in rows),
        "weights": {name: one for name, one in made["train"].items() if name.endswith(".safetensors")},
        "videos": made["generate"]["videos"],
        "numbers": {key: report[key] for key in numbers},
        "left": [path.relative_to(folder).as_posix() for path in folder.rglob(".tmp-*")],
    }


def runs() -> list[Case]:
    """Return a whole run, which takes many seconds a kill, and one whose dataset is there."""
    more: dict[str, Any] = {"words": RUN, "outcome": run_outcome, "environ": CACHE, "server": "run", "long_only": True}
    return [
        Case(name="run", prepare=run_recipe, most=24, **more),
        Case(name="run on a dataset", prepare=frozen, most=60, **more),
    ]
