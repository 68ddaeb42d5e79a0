"""Which of a run's checkpoints were best: by the loss on held-out scenes, and by what the probes read in the previews."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from generator.io.checksummed_json import parse_checksummed_line
from scenes.axes import AXES
from trainer.training.callbacks.metrics import FILE
from trainer.training.checkpoints.checkpoint import checkpoint_path, checkpoint_steps, is_scheduled

ENOUGH_READ = 0.5  # share of a preview's videos that the probe read; of fewer, the median says nothing


@dataclass(frozen=True, kw_only=True)
class Best:
    """The step that was best by something, and what was measured there, in words."""

    by: str
    step: int
    words: str

    def line(self, folder: Path) -> str:
        """Return one line that names the checkpoint."""
        return f"best by {self.by}: {checkpoint_path(folder, self.step)} ({self.words})"


def best_checkpoints(folder: Path) -> tuple[Best, ...]:
    """Return the best of a run's checkpoints that are there: by validation, and by the probe of every axis in the previews.

    Of equal ones the later is named. A preview of which the probe read less than half is left out.
    """
    there = {step for step in checkpoint_steps(folder) if is_scheduled(checkpoint_path(folder, step))}  # the others go
    measured = [(step, kind, values) for step, kind, values in _measured(folder / FILE) if step in there]
    found: list[Best] = []
    losses = {
        step: values["loss"] for step, kind, values in measured if kind == "validation" and values.get("loss") is not None
    }
    if losses:
        step = _least(losses)
        found.append(Best(by="validation", step=step, words=f"loss {losses[step]:.4g}"))
    for axis in AXES:
        errors = {step: e for step, kind, values in measured if kind == "preview" and (e := _error(axis, values)) is not None}
        if errors:
            step = _least(errors)
            words = f"median error {errors[step]:.3g} {AXES[axis].error_unit}"
            found.append(Best(by=f"the {axis} probe", step=step, words=words))
    return tuple(found)


def _least(values: Mapping[int, float]) -> int:
    return min(values, key=lambda step: (values[step], -step))


def _error(axis: str, values: Mapping[str, float]) -> float | None:
    videos = values.get(f"{axis}/videos") or 0.0
    if not videos or (values.get(f"{axis}/readable") or 0.0) < ENOUGH_READ * videos:
        return None
    return values.get(f"{axis}/median_error")


def _measured(log: Path) -> Iterable[tuple[int, str, Mapping[str, float]]]:
    """Yield what was validated and previewed; the far more lines of single steps are passed over unread."""
    if not log.is_file():
        return
    for line in log.read_bytes().split(b"\n"):
        if b'"kind": "train"' in line or not line:
            continue
        try:
            tree = parse_checksummed_line(line, optional=True)
            yield int(tree["step"]), str(tree["kind"]), dict(tree["values"])
        except (ValueError, KeyError, TypeError):  # a line that a kill cut short; a damaged log is said by `read_events`
            continue
