"""What helps the tiny backbone's transformer: arms of equal CPU time, one change at a time, one process.

    python benchmarks/tiny_ladder.py --work out/tiny --vae trainer/tiny/model/vae [--cpu-s 400] [--only "patch 1"]

Needs the stages `clips` and `tokenizer` of `python -m trainer.tiny`; the latents are made with the autoencoder given, one turn
of each clip. An arm's first steps tell what a step costs, and so how many it has: each trains to the end of its own schedule.
Losses are of held-out clips, of averaged weights; losses of arms with other latents cannot be compared.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKLWan

from trainer.data.cache import module_digest
from trainer.tiny.shared.clips import load_clips
from trainer.tiny.shared.config import Optimizing, TransformerSettings, read_settings
from trainer.tiny.shared.train_stage import StageTask, loop_settings
from trainer.tiny.stages import TinyWork, tokenizer
from trainer.tiny.transformer.latents import encode_world
from trainer.tiny.transformer.transformer_stage import TransformerStage, save_samples
from trainer.training.loop import Loop
from trainer.training.tasks.base import Callback, Task, TrainingProgress
from trainer.training.tasks.weights import swapped

RESULTS = Path(__file__).parent / "results" / "tiny_ladder.json"
TRIED = 4  # steps that tell what one costs
MOVING = ((9, 0.65), (5, 0.35))
PROMPTS = (
    "A large red cube moves quickly from left to right in front of a light grey backdrop.",
    "A large blue cone moves slowly upwards in front of an ivory backdrop.",
    "A medium yellow star prism moves quickly downwards in front of a dark slate backdrop.",
    "A medium green torus on the left and a medium red sphere on the right, in front of a dark grey backdrop.",
)
ARMS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "patch 2, from nothing": {"patch": 2},
        "patch 1, from nothing": {},
        "patch 1, the shipped one's blocks": {"start": "shipped"},
        "the same, things weigh 3": {"start": "shipped", "things": 3.0},
        "the same, no stills": {"start": "shipped", "things": 3.0, "frames": MOVING},
        "the same, 8 blocks": {"start": "shipped", "things": 3.0, "layers": 8},
        "patch 1, width 256, from nothing": {"heads": 8, "feed_forward": 720},
    }
)


def trained(
    work: TinyWork, arm: Mapping[str, Any], parts: tuple[Any, AutoencoderKLWan], cpu_s: float, folder: Path
) -> dict[str, Any]:
    """Train an arm for so many CPU seconds; return its steps and losses, and draw what it makes of a few prompts."""
    latents, vae = parts
    shutil.rmtree(folder, ignore_errors=True)  # of an arm that was stopped: how long its first steps took is not known
    settings = TransformerSettings(batch=16, turns=1, steps=TRIED, optimizing=schedule()).model_copy(update=dict(arm))
    began_s = time.process_time()
    stage = TransformerStage(settings, latents, tokenizer(work), vae)
    bare_loop(stage, folder / "tried").run()
    steps = max(TRIED, int(cpu_s / ((time.process_time() - began_s) / TRIED)))
    stage = TransformerStage(settings.model_copy(update={"steps": steps}), latents, tokenizer(work), vae)
    budget = Budget(1.1 * cpu_s)
    loop = bare_loop(stage, folder / "run", budget)
    with suppress(KeyboardInterrupt):
        loop.run()
    spent_s = time.process_time() - budget.began_s
    with swapped(loop.parameters, loop.average):
        save_samples(stage.sample(PROMPTS, 9, seed=0), folder / "samples.png")
        losses = stage.held_out_loss()
    millions = sum(parameter.numel() for parameter in stage.module.parameters()) / 1e6
    return {"steps": loop.step, "cpu_s": round(spent_s), "million_parameters": round(millions, 2), **losses}


class Budget:
    """Stops a training after so many CPU seconds, as Ctrl-C does."""

    logs = True

    def __init__(self, cpu_s: float) -> None:
        self.cpu_s, self.began_s = cpu_s, time.process_time()

    def started(self, task: Task, step: int, steps: int) -> None:
        """Begin to count."""
        self.began_s = time.process_time()

    def stepped(self, task: Task, progress: TrainingProgress) -> None:
        """Ask to stop once the budget is spent."""
        if time.process_time() - self.began_s > self.cpu_s:
            self.cpu_s = math.inf
            signal.raise_signal(signal.SIGINT)

    def finished(self, task: Task, step: int) -> None:
        """Nothing is open."""


def bare_loop(stage: TransformerStage, folder: Path, *callbacks: Callback) -> Loop:
    """Return the loop of a stage without its log and without its validation, which draws."""
    optimizing = stage.settings.optimizing
    task, accelerator = StageTask(stage, optimizing.seed), Accelerator(cpu=True, mixed_precision="no")
    return Loop(task, loop_settings(stage.phases, optimizing), folder, accelerator, callbacks=callbacks)


def schedule() -> Optimizing:
    """Return the same schedule for every arm: the full rate for 0.3 of the steps, then down to nothing."""
    return Optimizing(
        rate=1.2e-3, warmup=10, hold=0.3, floor=0.01, average=0.97, validate_every=10**9, log_every=20, compile=False,
        checkpoint_s=0,
    )  # fmt: skip


def main() -> None:
    """Run the arms and write their results; arms already there are kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("out/tiny"))
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--cpu-s", type=float, default=400)
    parser.add_argument("--only", choices=sorted(ARMS), nargs="+", default=list(ARMS))
    parser.add_argument("--json", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    vae = AutoencoderKLWan.from_pretrained(given.vae).float().eval()
    work = TinyWork(given.work, read_settings(None), lambda: False)
    clips = load_clips(given.work / "clips")
    name = module_digest(vae)[:12]
    latents = encode_world(vae, clips, given.work / "ladder" / "latents", name, 1)
    found = json.loads(given.json.read_text()) if given.json.is_file() else []
    for arm in given.only:
        told = {"arm": arm, "latents": name, "clips": len(clips.entries), "budget_s": given.cpu_s}
        if any(row.items() >= told.items() for row in found):
            continue
        folder = given.work / "ladder" / f"{name}-{arm.replace(' ', '-').replace(',', '')}-{given.cpu_s:g}"
        found.append({**told, **trained(work, ARMS[arm], (latents, vae), given.cpu_s, folder)})
        print(found[-1], flush=True)
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
