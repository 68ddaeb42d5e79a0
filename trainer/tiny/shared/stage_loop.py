"""A small training loop for one machine: phases of clip lengths, a running average, exact resume, a metric log.

The batch and the noise of a step are functions of (seed, step) alone, so a resumed run repeats an uninterrupted one.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from trainer.tiny.shared.config import Optimizing, Phase
from trainer.tiny.shared.muon import HybridOptimizer

CHECKPOINT, METRICS = "checkpoint.pt", "metrics.jsonl"


class TinyStage(Protocol):
    """What a stage of the backbone trains."""

    module: nn.Module
    phases: tuple[Phase, ...]

    def batch(self, phase: Phase, rng: np.random.Generator) -> Mapping[str, Tensor]:
        """Return the tensors of a step."""
        ...

    def loss(self, batch: Mapping[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean loss of a batch and what else is worth a line of the log."""
        ...

    def validate(self, step: int, folder: Path) -> dict[str, float]:
        """Return what is measured on held-out clips; `module` holds the averaged weights meanwhile."""
        ...


class Averaged:
    """A running average of parameters, which starts quickly and settles at `decay`."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.live = dict(parameters)
        self.kept = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after optimizer step `step`."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.kept.values()), list(self.live.values()), weight)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the average and the parameters."""
        for name, parameter in self.live.items():
            held = parameter.detach().clone()
            parameter.copy_(self.kept[name])
            self.kept[name].copy_(held)


class StageRun:
    """A stage's training in a folder: made anew, or resumed from its checkpoint."""

    def __init__(self, stage: TinyStage, settings: Optimizing, folder: Path) -> None:
        self.stage, self.settings, self.folder = stage, settings, folder
        self.steps = sum(phase.steps for phase in stage.phases)
        self.parameters = {name: p for name, p in stage.module.named_parameters() if p.requires_grad}
        self.average = Averaged(self.parameters, settings.average)
        self.optimizer = HybridOptimizer(self.parameters, settings)
        self.step = 0
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / CHECKPOINT).is_file():
            self._load()

    def train(self, until: int | None = None, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to step `until` (the end if not given); returns whether all steps are made."""
        last = self.steps if until is None else min(until, self.steps)
        saved_s = logged_s = time.monotonic()
        logged, losses = self.step, []
        while self.step < last and not stop():
            losses.append(self._one())
            now_s = time.monotonic()
            if self.step % self.settings.log_every == 0:
                row = {key: float(np.mean([loss[key] for loss in losses])) for key in losses[0]}
                speed = {"share": self._share(), "steps_per_s": (self.step - logged) / (now_s - logged_s)}
                self._log({**row, **speed})
                logged, logged_s, losses = self.step, now_s, []
            if self.step % self.settings.validate_every == 0 or self.step == self.steps:
                self.validate()
            if now_s - saved_s > self.settings.checkpoint_s:
                self.save()
                saved_s = now_s
        self.save()
        return self.step >= self.steps

    def _one(self) -> dict[str, float]:
        """Make one optimizer step; return its loss and other numbers."""
        batch = self.stage.batch(self._phase(), np.random.default_rng((self.settings.seed, self.step)))
        generator = torch.Generator().manual_seed((self.settings.seed << 32) + self.step)
        loss, extra = self.stage.loss(batch, generator)
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.settings.clip)
        self.optimizer.step(self._share())
        self.step += 1
        self.average.update(self.step)
        return {
            "loss": float(loss.detach()),
            "gradient_norm": float(norm),
            **{key: float(value) for key, value in extra.items()},
        }

    def validate(self) -> dict[str, float]:
        """Measure the averaged weights on held-out clips, log and return it."""
        self.average.swap()
        try:
            measured = self.stage.validate(self.step, self.folder)
        finally:
            self.average.swap()
        self._log(measured)
        return measured

    def save(self) -> None:
        """Write the checkpoint: temporary file, then rename."""
        state = {
            "step": self.step,
            "parameters": {name: p.detach() for name, p in self.parameters.items()},
            "average": self.average.kept,
            "optimizer": self.optimizer.state_dict(),
        }
        scratch = self.folder / f".{CHECKPOINT}.{os.getpid()}"
        torch.save(state, scratch)
        os.replace(scratch, self.folder / CHECKPOINT)

    @torch.no_grad()
    def _load(self) -> None:
        state: dict[str, Any] = torch.load(self.folder / CHECKPOINT, weights_only=True)
        for name, parameter in self.parameters.items():
            parameter.copy_(state["parameters"][name])
            self.average.kept[name].copy_(state["average"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def _phase(self) -> Phase:
        end = 0
        for phase in self.stage.phases:
            end += phase.steps
            if self.step < end:
                return phase
        return self.stage.phases[-1]

    def _share(self) -> float:
        """Return the share of the full rate that this step is made at."""
        s = self.settings
        if self.step < s.warmup:
            return (self.step + 1) / s.warmup
        share = ((self.step - s.warmup) / max(1, self.steps - s.warmup) - s.hold) / (1 - s.hold)
        return s.floor + (1 - s.floor) * 0.5 * (1 + math.cos(math.pi * min(max(share, 0.0), 1.0)))

    def _log(self, row: Mapping[str, float]) -> None:
        with (self.folder / METRICS).open("a") as file:
            file.write(json.dumps({"step": self.step, "time_s": round(time.time(), 1), **row}) + "\n")


@torch.no_grad()
def load_average(module: nn.Module, folder: Path) -> int:
    """Put a run's averaged weights into a module; returns the step they are of."""
    state = torch.load(folder / CHECKPOINT, weights_only=True)
    parameters = dict(module.named_parameters())
    for name, value in state["average"].items():
        parameters[name].copy_(value)
    return int(state["step"])
