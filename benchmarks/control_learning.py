"""How far a control decides what is predicted, against what is seen: one change of the objective at a time, equal steps.

    python benchmarks/control_learning.py examples/tiny_shutter.toml --dataset datasets/tiny-shutter [--steps 400]

Each arm fits a fresh adapter on the bundled backbone by the recipe's [train] with some of its values changed. Then, on held-out
scenes, groups of four clips of a scene share their noise, which shows each of them its neighbour: what is seen speaks against
the control. `followed` is the slope of the predicted clips' differences on those that the control asks for (1 is full control,
0 none), by noise level; `unasked` is the same where nothing contradicts, which the network could tell from what it sees.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from trainer.config.train import TrainSettings
from trainer.data.batches import CONTROLS_NAME, LATENTS, TEXT
from trainer.data.records import TrainingClip
from trainer.methods.control.task import ControlTask
from trainer.training.loop import Loop
from trainer.training.setup import PreparedRun, open_run, prepare_run
from trainer.training.tasks.objective import counterfactual_noise, mix, predict_velocity

RESULTS = Path(__file__).parent / "results" / "control_learning.json"
TIMES = (0.5, 0.65, 0.8, 0.9)
GROUP, CLIPS = 4, 64
PLAIN = {"clips_per_scene": 1, "contrast": 1.0, "counterfactual_noise": 0.0}
ADAMW = {"optimizer": {"name": "adamw", "learning_rate": 1e-3}}
ARMS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "clips as they come": {**PLAIN, **ADAMW},
        "clips of a scene under one noise": {**PLAIN, **ADAMW, "clips_per_scene": 8},
        "and contrast": {**ADAMW, "counterfactual_noise": 0.0},
        "and counterfactual_noise": {**ADAMW},
        "and Muon": {},
        "Muon without counterfactual_noise": {"counterfactual_noise": 0.0},
    }
)


def main() -> None:
    """Run the arms one after another and write what was measured after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--only", help="one arm")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for name, changed in ARMS.items():
        if given.only not in (None, name):
            continue
        with tempfile.TemporaryDirectory() as folder:
            row = measured(settings_of(given.recipe, given.dataset, given.steps, changed), Path(folder))
        found |= {"steps": given.steps, "machine": f"{platform.machine()}, one thread", "torch": torch.__version__}
        found.setdefault("arms", {})[name] = row
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
        print(name, json.dumps(row), flush=True)


def settings_of(recipe: Path, dataset: Path, steps: int, changed: Mapping[str, Any]) -> TrainSettings:
    """Return the recipe's training with some values changed, and nothing on the side."""
    tree = tomllib.loads(recipe.read_text())["train"]
    optimizer = {**tree["optimizer"], **changed.get("optimizer", {})}
    tree |= {**changed, "optimizer": optimizer, "dataset": str(dataset), "steps": steps, "device": "cpu", "trackers": []}
    return TrainSettings.model_validate({**tree, "validation": {"every": 0}, "previews": {"every": 0}})


def measured(settings: TrainSettings, folder: Path) -> dict[str, Any]:
    """Fit an adapter and return what it does on held-out scenes."""
    accelerator = Accelerator(cpu=True)
    run = prepare_run(open_run(settings, torch.device("cpu")), accelerator)
    began_s = time.process_time()
    Loop(run.task, settings, folder, accelerator).run()
    row: dict[str, Any] = {"fitted_cpu_s": round(time.process_time() - began_s)}
    groups = grouped(run.opened.data.validation)
    return row | {name: [slope(run, groups, time, turn) for time in TIMES] for name, turn in (("followed", 1), ("unasked", 0))}


def grouped(records: tuple[TrainingClip, ...]) -> list[TrainingClip]:
    """Return clips of held-out scenes, `GROUP` of a scene after another, spread over its values."""
    scenes: dict[str, list[TrainingClip]] = {}
    for record in records:
        scenes.setdefault(record.scene_id, []).append(record)
    rich = [sorted(clips, key=lambda clip: clip.controls) for clips in scenes.values() if len(clips) > GROUP]
    return [clip for clips in rich for clip in clips[:: len(clips) // GROUP][:GROUP]][:CLIPS]


@torch.no_grad()
def slope(run: PreparedRun, clips: list[TrainingClip], time: float, turn: int) -> float:
    """Return the slope of the predicted differences within groups on the true ones, each clip shown its `turn`th neighbour."""
    task = run.task
    assert isinstance(task, ControlTask)
    task.module.eval()
    tensors = task.batches.batch(clips).tensors
    latents, times = tensors[LATENTS].float(), torch.full((len(clips),), time)
    one = torch.randn(len(clips) // GROUP, *latents.shape[1:], generator=torch.Generator().manual_seed(0))
    places = torch.arange(len(clips)).view(-1, GROUP).roll(turn, 1).flatten()
    noise = counterfactual_noise(latents, one.repeat_interleave(GROUP, 0), times, places)
    noisy = mix(latents, noise, times)
    velocity = predict_velocity(task.module, noisy, times * 1000, tensors[TEXT], tensors[CONTROLS_NAME], torch.float32)
    predicted, true = apart(noisy - time * velocity.float()), apart(latents)
    return round(float((predicted * true).sum() / true.square().sum()), 3)


def apart(clips_BCTHW: Tensor) -> Tensor:
    """Return clips less their group's mean."""
    groups = clips_BCTHW.view(-1, GROUP, *clips_BCTHW.shape[1:])
    return groups - groups.mean(1, keepdim=True)


if __name__ == "__main__":
    main()
