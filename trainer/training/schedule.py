"""The learning rate as a pure function of the step: a scheduler without state cannot be restored wrongly."""

from __future__ import annotations

import math

from trainer.config.train import OptimizerSettings


def learning_rate(settings: OptimizerSettings, full: float, step: int, steps: int) -> float:
    """Return the learning rate, `full` at most, of the optimizer step after `step` finished ones, of `steps` in all.

    It rises linearly over the warm-up, whose last step has the full rate, then stays, or falls to reach 0 after the last step.
    """
    warmup = settings.warmup_steps
    if step < warmup:
        return full * (step + 1) / warmup
    if settings.schedule == "constant":
        return full
    done = min((step - warmup) / max(steps - warmup, 1), 1.0)
    left = 1 - done if settings.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return full * left
