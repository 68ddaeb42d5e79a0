"""What the tiny backbone owes to its optimizer, the linear code and its size: equal steps, one change at a time, one process.

    python benchmarks/tiny_training.py --work out/tiny [--steps 600] [--only autoencoder]

Needs the stages `clips` and, for the transformer, `latents` of `python -m trainer.tiny`. Each arm trains from nothing to the
end of its own schedule, so that what is compared is finished. Times are CPU seconds of one thread and include validation.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from trainer.tiny.shared.clips import load_clips
from trainer.tiny.shared.config import Optimizing, Phase, TinySettings, TransformerSettings, read_settings
from trainer.tiny.shared.train_stage import load_average, train_stage
from trainer.tiny.stages import TinyWork, latents, tokenizer, vae
from trainer.tiny.transformer.transformer_stage import TransformerStage
from trainer.tiny.vae.vae_stage import VaeStage, reconstruct
from trainer.training.callbacks.metrics import FILE, read_events

RESULTS = Path(__file__).parent / "results" / "tiny_training.json"
PLAIN = TransformerSettings().optimizing.plain
ARMS: Mapping[str, Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "autoencoder": {
            "AdamW": {"matrix_rate": 0.0, "linear": False},
            "Muon": {"matrix_rate": 0.02, "linear": False},
            "Muon, taught the linear code first": {"matrix_rate": 0.02, "linear": True},
        },
        "transformer": {
            "AdamW": {"matrix_rate": 0.0},
            "Muon, rate 0.01": {"matrix_rate": 0.01},
            "Muon, rate 0.02": {"matrix_rate": 0.02},
            "Muon, rate 0.04": {"matrix_rate": 0.04},
            "Muon, the text encoder left to AdamW": {"plain": r"^text|" + PLAIN},
            "4 blocks": {"size": {"layers": 4}},
            "8 blocks": {"size": {"layers": 8}},
            "width 128": {"size": {"heads": 4, "feed_forward": 360}},
            "width 256": {"size": {"heads": 8, "feed_forward": 720}},
        },
    }
)


def autoencoder(work: TinyWork, arm: Mapping[str, Any], steps: int, folder: Path) -> dict[str, float]:
    """Train an autoencoder on clips of 5 frames; return the PSNR of held-out clips of that length, decibels."""
    phases = (Phase(frames=5, batch=8, steps=steps),)
    if arm["linear"]:
        phases = (Phase(frames=5, batch=8, steps=steps // 3, linear=True), Phase(frames=5, batch=8, steps=steps - steps // 3))
    optimizing = schedule(2e-3, arm["matrix_rate"], "^$", steps)
    settings = work.settings.vae.model_copy(update={"phases": phases, "optimizing": optimizing})
    stage = VaeStage(settings, load_clips(work.folder / "clips"))
    train_stage(stage, optimizing, folder)
    load_average(stage.vae, folder)
    held = [stage.clips.video(entry)[:5] for entry in stage.clips.split("validation", at_least=5)[:48]]
    errors = [np.mean((reconstruct(stage.vae, video).astype(np.float64) - video) ** 2) for video in held]
    return {"psnr_db": float(np.mean(10 * np.log10(255**2 / np.array(errors))))}


def transformer(work: TinyWork, arm: Mapping[str, Any], steps: int, folder: Path) -> dict[str, float]:
    """Train a transformer; return the loss of held-out clips and its millions of parameters."""
    optimizing = schedule(1.2e-3, arm.get("matrix_rate", 0.02), arm.get("plain", PLAIN), steps)
    settings = work.settings.transformer.model_copy(update={"steps": steps, "optimizing": optimizing, **arm.get("size", {})})
    stage = TransformerStage(settings, latents(work), tokenizer(work), vae(work))
    train_stage(stage, optimizing, folder)
    millions = sum(parameter.numel() for parameter in stage.module.parameters()) / 1e6
    return {
        "validation_loss": float(read_events(folder / FILE)[-1].values["validation_loss"] or math.nan),
        "million_parameters": round(millions, 2),
    }


def schedule(rate: float, matrix_rate: float, plain: str, steps: int) -> Optimizing:
    """Return the same schedule for every arm: the full rate for 0.3 of the steps, then down to nothing."""
    return Optimizing(
        rate=rate, matrix_rate=matrix_rate, plain=plain, warmup=30, hold=0.3, floor=0.01, average=0.98, validate_every=steps
    )


def main() -> None:
    """Run the arms and write their results; arms already there under the same number of steps are kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("out/tiny"))
    parser.add_argument("--settings", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--only", choices=sorted(ARMS))
    parser.add_argument("--json", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    settings: TinySettings = read_settings(given.settings)
    work = TinyWork(given.work, settings, lambda: False)
    found = json.loads(given.json.read_text()) if given.json.is_file() else {}
    if found.get("steps") != given.steps:
        found = {
            "steps": given.steps,
            "machine": platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "arms": [],
        }
    done = {(row["stage"], row["arm"]) for row in found["arms"]}
    for stage, arms in ARMS.items():
        for name, arm in arms.items():
            if (stage, name) in done or given.only not in (None, stage):
                continue
            began_s = time.process_time()
            with tempfile.TemporaryDirectory() as folder:
                made = {"autoencoder": autoencoder, "transformer": transformer}[stage](work, arm, given.steps, Path(folder))
            row = {"stage": stage, "arm": name, **made, "cpu_s": round(time.process_time() - began_s, 1)}
            found["arms"].append(row)
            print(row, flush=True)
            given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
