"""Trains a stage of the bundled backbone by the loop that trains everything: in phases of clip lengths, on the CPU.

The batch and the noise of a step are functions of (seed, step) alone, so a resumed run repeats an uninterrupted one.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from scenes.errors import InputError
from trainer.config.train import CheckpointSettings
from trainer.control import WanAdapter
from trainer.data.batch import Batch
from trainer.tiny.shared.config import Optimizing, Phase
from trainer.tiny.shared.muon import HybridOptimizer
from trainer.training.callbacks.due import is_due, make_up
from trainer.training.callbacks.evaluation_mode import evaluation_mode
from trainer.training.callbacks.metrics import FILE, MetricsFile, MetricsLog, Sink
from trainer.training.callbacks.progress_bar import make_progress_sink
from trainer.training.callbacks.validation import Averaged
from trainer.training.checkpoints.checkpoint import checkpoint_steps, read_latest
from trainer.training.loop import Loop
from trainer.training.loop_settings import LoopSettings
from trainer.training.tasks.base import Task, TrainingProgress

FORMER_CHECKPOINT = "checkpoint.pt"


class TinyStage(Protocol):
    """What a stage of the backbone trains."""

    module: nn.Module
    phases: tuple[Phase, ...]

    def batch(self, phase: Phase, rng: np.random.Generator) -> Mapping[str, Tensor]:
        """Return the tensors of a step."""
        ...

    def loss(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean loss of a batch and what else is worth a line of the log."""
        ...

    def validate(self, step: int, folder: Path) -> dict[str, float]:
        """Return what is measured on held-out clips; `module` holds the averaged weights meanwhile."""
        ...


class StageTask:
    """A stage as the loop takes it. A whole batch counts as one clip: in its loss, clips are weighed against each other."""

    adapters: Mapping[str, WanAdapter] = MappingProxyType({})

    def __init__(self, stage: TinyStage, seed: int) -> None:
        self.name = type(stage).__name__
        self.stage, self.seed = stage, seed
        self.module = stage.module
        self.measured: dict[str, float] = {}  # in the last step, beside the loss

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return all that trains."""
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}

    def micro_batch(self, micro_step: int, rank: int, ranks: int) -> Batch:
        """Return the batch of a step."""
        rng = np.random.default_rng((self.seed, micro_step))
        return Batch(clip_ids=(f"batch {micro_step}",), tensors=self.stage.batch(_phase(self.stage.phases, micro_step), rng))

    def losses(self, batch: Batch, generator: torch.Generator, module: nn.Module) -> Tensor:
        """Return the mean loss of the batch [1]."""
        loss, measured = self.stage.loss(batch.tensors)
        self.measured = {name: float(value) for name, value in measured.items()}
        return loss[None]

    def before_step(self, step: int) -> None:
        """Do nothing: a step depends on its batch alone."""

    def save(self, folder: Path, step: int, averaged: Mapping[str, Tensor] | None) -> None:
        """Write nothing: what a stage makes is made of its newest checkpoint, finished or not (`load_average`)."""

    def save_beside(self, checkpoint: Path, step: int, weights: Mapping[str, Tensor]) -> None:
        """Write nothing."""


class StageLog(MetricsLog):
    """The metric log of a stage: means over some steps each, with the stage's own numbers beside the loss."""

    def __init__(self, sinks: Sequence[Sink], every: int) -> None:
        super().__init__(sinks)
        self.every = every
        self._rows: list[dict[str, float]] = []

    def stepped(self, task: Task, progress: TrainingProgress) -> None:
        """Remember a step, and log when it is time."""
        assert isinstance(task, StageTask)
        self._rows.append({"loss": progress.loss, "gradient_norm": progress.gradient_norm, **task.measured})
        if progress.step % self.every and progress.step != progress.steps:
            return
        names = dict.fromkeys(name for row in self._rows for name in row)  # phases measure different things
        means = {name: float(np.mean([row[name] for row in self._rows if name in row])) for name in names}
        speed = {"steps_per_s": progress.steps_per_s, "peak_memory_bytes": float(progress.peak_memory_bytes)}
        self.write(progress.step, "train", {**means, "learning_rate": progress.learning_rate}, speed)
        self._rows = []


class StageValidation:
    """Lets a stage measure its averaged weights on held-out clips."""

    logs = False

    def __init__(self, log: MetricsLog, every: int, folder: Path, averaged: Averaged) -> None:
        self.log, self.every, self.folder, self.averaged = log, every, folder, averaged

    def started(self, task: Task, step: int, steps: int) -> None:
        """Make up what a run that died had yet to measure."""
        if is_due(step, steps, self.every):
            make_up(self.log, "validation", step, lambda: self.measure(task, step))

    def stepped(self, task: Task, progress: TrainingProgress) -> None:
        """Measure and log if it is due."""
        if is_due(progress.step, progress.steps, self.every):
            self.log.write(progress.step, "validation", self.measure(task, progress.step))

    def finished(self, task: Task, step: int) -> None:
        """Nothing is open."""

    def measure(self, task: Task, step: int) -> dict[str, float]:
        """Return what the stage measures; its weights are as they were afterwards."""
        assert isinstance(task, StageTask)
        with evaluation_mode(task, self.averaged()):
            return task.stage.validate(step, self.folder)


def stage_loop(stage: TinyStage, settings: Optimizing, folder: Path) -> Loop:
    """Return the loop that trains a stage in a folder, its metric log and validation with it.

    Raises InputError for a folder with the checkpoint of an earlier version.
    """
    if (folder / FORMER_CHECKPOINT).is_file() and not checkpoint_steps(folder):
        raise InputError(
            f"{folder / FORMER_CHECKPOINT} is of an earlier version, which this one does not read; go on with that version, "
            "or move the file away to begin anew"
        )
    log = StageLog((MetricsFile(folder / FILE), make_progress_sink(sys.stderr)), settings.log_every)
    accelerator = Accelerator(cpu=True, mixed_precision="no")
    task = StageTask(stage, settings.seed)
    loop = Loop(task, loop_settings(stage.phases, settings), folder, accelerator, callbacks=(log,))
    loop.watch(StageValidation(log, settings.validate_every, folder, lambda: loop.average))
    return loop


def train_stage(stage: TinyStage, settings: Optimizing, folder: Path) -> None:
    """Train a stage to its end, from its last checkpoint if there is one.

    Raises KeyboardInterrupt, with a checkpoint written, when asked to stop.
    """
    loop = stage_loop(stage, settings, folder)
    loop.run()
    if loop.interrupted:
        raise KeyboardInterrupt


def loop_settings(phases: Sequence[Phase], settings: Optimizing) -> LoopSettings:
    """Return what the loop needs to know of a stage."""
    steps = sum(phase.steps for phase in phases)
    return LoopSettings(
        steps=steps,
        seed=settings.seed,
        make_optimizer=lambda parameters: HybridOptimizer(parameters, settings),
        rate=lambda full, step: full * share_of_rate(settings, step, steps),
        checkpoints=CheckpointSettings(every=settings.validate_every, minutes=settings.checkpoint_s / 60, keep=1),
        clip_norm=settings.clip,
        ema_decay=settings.average,
    )


def share_of_rate(settings: Optimizing, step: int, steps: int) -> float:
    """Return the share of the full rate that the step after `step` finished ones is made at."""
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    share = ((step - settings.warmup) / max(1, steps - settings.warmup) - settings.hold) / (1 - settings.hold)
    return settings.floor + (1 - settings.floor) * 0.5 * (1 + math.cos(math.pi * min(max(share, 0.0), 1.0)))


@torch.no_grad()
def load_average(module: nn.Module, folder: Path) -> int:
    """Put a run's averaged weights into a module; returns the step they are of.

    Raises InputError where there is no checkpoint.
    """
    latest = read_latest(folder)
    if latest is None:
        raise InputError(f"{folder} has no checkpoint; run the stage first")
    parameters = dict(module.named_parameters())
    for name, value in (latest.averaged or latest.parameters).items():
        parameters[name].copy_(value)
    return latest.step


def _phase(phases: Sequence[Phase], step: int) -> Phase:
    """Return the phase that the step after `step` finished ones is of."""
    end = 0
    for phase in phases:
        end += phase.steps
        if step < end:
            return phase
    return phases[-1]
