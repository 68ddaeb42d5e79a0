"""When something rare is measured, and what is made up where a run died between a checkpoint and its measuring."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from trainer.training.callbacks.metrics import Kind, MetricsLog
from trainer.training.callbacks.surviving import surviving


def is_due(step: int, steps: int, every: int) -> bool:
    """Return whether what is measured every `every` steps, and at the last one, is due after a step."""
    return step > 0 and (step % every == 0 or step == steps)


def make_up(metrics_log: MetricsLog, kind: Kind, step: int, measure: Callable[[], Mapping[str, float | None]]) -> None:
    """Measure and log what was due at the step that a run goes on from, if its log lacks it; the weights are of that step."""
    if metrics_log.lacks(step, kind):
        with surviving(f"the {kind} of step {step}"):
            metrics_log.write(step, kind, measure())
