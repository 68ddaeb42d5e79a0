"""A small real task for the tests of the loop: a network that learns to undo a mixture of clips and noise, in two sizes.

Shapes: B clips, F features.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from generator.io.atomic import write_atomic
from trainer.config.train import CheckpointSettings, OptimizerSettings, TrainSettings
from trainer.data.batch import Batch
from trainer.data.buckets import BucketSampler
from trainer.training.tasks.base import TrainingProgress

SIZES = ((1, 6, 6), (5, 6, 6))  # two buckets; the first number is how often the features repeat


class Net(nn.Module):
    """A frozen first layer and two that train, the first of them behind a gate that the ramp opens."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(6, 8).requires_grad_(False)
        self.body = nn.Linear(8, 8)
        self.head = nn.Linear(8, 6)
        self.gate = 0.0

    def forward(self, features_BRF: Tensor) -> Tensor:
        """Return a prediction of the features' shape."""
        hidden = torch.tanh(self.frozen(features_BRF))
        return self.head(hidden + self.gate * torch.tanh(self.body(hidden)))


class ToyTask:
    """A regression over 10 clips of two sizes; the noise comes from the loop's generator."""

    name = "toy"
    adapters: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, settings: TrainSettings, *, clips: int = 10) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.module: nn.Module = Net()
            self.clips = [torch.randn(SIZES[clip % 2][0], 6) for clip in range(clips)]
        self.net = self.module
        self.sampler = BucketSampler([SIZES[clip % 2] for clip in range(clips)], settings.batch_size, settings.seed)
        self.poison: dict[str, float] = {}
        self.ramp_steps = 4

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the two layers that train."""
        return {name: p for name, p in self.net.named_parameters() if not name.startswith("frozen")}

    def micro_batch(self, micro_step: int, rank: int, ranks: int) -> Batch:
        """Return the batch of a micro-step."""
        positions = self.sampler.micro_batch(micro_step, rank, ranks)
        return Batch(
            clip_ids=tuple(f"clip-{position}" for position in positions),
            tensors={"clean": torch.stack([self.clips[position] for position in positions])},
        )

    def losses(self, batch: Batch, generator: torch.Generator, module: nn.Module) -> Tensor:
        """Return each clip's squared error; `poison` adds to the loss of chosen clips."""
        clean = batch.tensors["clean"]
        noise = torch.randn(clean.shape, generator=generator)
        error = module(clean + noise) - clean
        extra = torch.tensor([self.poison.get(clip, 1.0) for clip in batch.clip_ids])
        return error.square().flatten(1).mean(1) * extra

    def before_step(self, step: int) -> None:
        """Open the gate over the first steps."""
        self.net.gate = min(1.0, (step + 1) / self.ramp_steps)

    def save(self, folder: Path, step: int, averaged: Mapping[str, Tensor] | None) -> None:
        """Write the weights and the step."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = averaged or {name: p.detach() for name, p in self.parameters().items()}
        write_atomic(folder / "weights.safetensors", save({name: tensor.contiguous() for name, tensor in weights.items()}))
        (folder / "step.json").write_text(json.dumps(step))

    def save_beside(self, checkpoint: Path, step: int, weights: Mapping[str, Tensor]) -> None:
        """Write nothing."""


class Log:
    """A watcher that keeps the loss of every step in a file, which it cuts back to where a run goes on."""

    logs = True

    def __init__(self, path: Path) -> None:
        self.path = path

    def started(self, task: Any, step: int, steps: int) -> None:
        """Forget the steps that are made again."""
        rows = read_log(self.path)
        self.path.write_text("".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step))

    def stepped(self, task: Any, progress: TrainingProgress) -> None:
        """Append a step."""
        row = {"step": progress.step, "loss": progress.loss, "norm": progress.gradient_norm, "rate": progress.learning_rate}
        with self.path.open("a") as file:
            file.write(json.dumps({**row, "clips": progress.clip_ids}) + "\n")

    def finished(self, task: Any, step: int) -> None:
        """Nothing is open."""


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a log."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]  # one without an end was being written


def toy_settings(**changes: Any) -> TrainSettings:
    """Return settings of a short run with everything on: average, cosine, accumulation, warm-up."""
    optimizer = {
        "learning_rate": 3e-2,
        "warmup_steps": 3,
        "ema_decay": 0.9,
        "schedule": "cosine",
        **changes.pop("optimizer", {}),
    }
    values: dict[str, Any] = {
        "dataset": "none",
        "steps": 17,
        "batch_size": 2,
        "accumulation": 3,
        "seed": 5,
        "precision": "no",
        "device": "cpu",
        "optimizer": OptimizerSettings(**optimizer),
        "checkpoints": CheckpointSettings(every=4, keep=2),
        **changes,
    }
    return TrainSettings(**values)
