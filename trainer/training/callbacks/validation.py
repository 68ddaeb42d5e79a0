"""Loss on held-out scenes at fixed noise and fixed times, so that its curve shows the model and not the draw.

Beside it the *control gap*: by how much the loss rises when a clip's control is replaced by neutral. It is 0 for a model that
does not look at its control, and for clips whose control is neutral anyway, which are left out of it.

Shapes: B clips, C latent channels, T latent frames, H rows, W columns; A axes; N clips in all, K times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scenes.arrays import Floats
from scenes.errors import InputError, StopdownError
from trainer.data.batch import Batch
from trainer.data.batches import CONTROLS_NAME, LATENTS, FlowBatches
from trainer.data.records import TrainingClip
from trainer.training.callbacks.due import is_due, make_up
from trainer.training.callbacks.evaluation_mode import check_whole, evaluation_mode
from trainer.training.callbacks.metrics import MetricsLog
from trainer.training.tasks.base import Task, TrainingProgress
from trainer.training.tasks.flow import Draw, RectifiedFlow
from trainer.training.tasks.objective import fixed_noise, fixed_times, shift_times

Averaged = Callable[[], Mapping[str, Tensor] | None]  # the averaged weights as they are now


@runtime_checkable
class FlowTask(Protocol):
    """A task whose loss can be had at given noise levels and noise: the control adapter, the whole transformer."""

    batches: FlowBatches
    flow: RectifiedFlow
    module: nn.Module

    def losses_at(self, batch: Batch, draw: Draw, module: nn.Module) -> Tensor:
        """Return the loss of every clip [B]."""
        ...


class Validation:
    """The watcher that validates every `every` steps and at the last one.

    `records` are held-out clips, of which at most `clips` are used, spread evenly; `axes` are the names of their controls.
    """

    logs = False

    def __init__(
        self,
        metrics_log: MetricsLog,
        records: Sequence[TrainingClip],
        axes: Sequence[str],
        *,
        every: int,
        times: int,
        clips: int,
        batch_size: int = 1,
        averaged: Averaged = lambda: None,
    ) -> None:
        if not records:
            raise InputError("no clip is held out to validate with; build more scenes, or set validation.every = 0")
        self.metrics_log = metrics_log
        self.records = spread(records, clips)
        self.axes = tuple(axes)
        self.every = every
        self.times = times
        self.batch_size = batch_size
        self.averaged = averaged

    def started(self, task: Task, step: int, steps: int) -> None:
        """Refuse what cannot be validated before any step is made; raises InputError."""
        self.refuse(task)
        if is_due(step, steps, self.every):
            make_up(self.metrics_log, "validation", step, lambda: self.measure(task))

    def refuse(self, task: Task) -> None:
        """Raise for a task that cannot be validated."""
        if not isinstance(task, FlowTask):
            raise StopdownError(f"task {task.name} has no loss at given noise; it cannot be validated")
        check_whole(task.module)

    def stepped(self, task: Task, progress: TrainingProgress) -> dict[str, float] | None:
        """Validate if it is due; logs and returns `loss`, `gap` and their parts."""
        if not is_due(progress.step, progress.steps, self.every):
            return None
        values = self.measure(task)
        self.metrics_log.write(progress.step, "validation", values)
        return values

    def finished(self, task: Task, step: int) -> None:
        """Nothing is open."""

    def measure(self, task: Task) -> dict[str, float]:
        """Return the mean loss, by axis, by size (frames x height x width) and by time, and the control gap, by axis.

        Clips are at full control, whatever the ramp has reached. The task is left as it was.
        """
        assert isinstance(task, FlowTask)
        with evaluation_mode(task, self.averaged()):
            for adapter in getattr(task, "adapters", {}).values():
                adapter.set_ramp(1.0)
            true_NK = self._losses(task, None)
            neutral = {axis: self._losses(task, axis) for axis in self.axes if self._varying(axis).any()}
        return self._summary(true_NK, neutral, times_of(task.flow, self.times).tolist())

    def _losses(self, task: FlowTask, without: str | None) -> Floats:
        """Return losses [N, K]; with `without`, that axis is neutral, and rows of clips that do not vary it stay NaN."""
        losses_NK = np.full((len(self.records), self.times), np.nan)
        for places, batch in self._batches(task, without):
            latents_BCTHW = batch.tensors[LATENTS]
            noise_BCTHW = torch.stack([fixed_noise(tuple(latents_BCTHW.shape[1:]), name) for name in batch.clip_ids])
            for column, time in enumerate(times_of(task.flow, self.times)):
                draw = Draw(times_B=time.repeat(len(places)), noise_BCTHW=noise_BCTHW)
                losses_NK[places, column] = task.losses_at(batch, draw, task.module).double().cpu().numpy()
        return losses_NK

    def _batches(self, task: FlowTask, without: str | None) -> Iterator[tuple[list[int], Batch]]:
        """Yield batches of clips of one size, with their places among the records."""
        used = np.flatnonzero(self._varying(without)) if without is not None else range(len(self.records))
        by_shape: dict[tuple[int, int, int], list[int]] = {}
        for place in used:
            by_shape.setdefault(self.records[place].shape, []).append(int(place))
        for places in by_shape.values():
            for start in range(0, len(places), self.batch_size):
                some = places[start : start + self.batch_size]
                batch = task.batches.batch([self.records[place] for place in some])
                if without is not None:
                    batch = _neutral(batch, self.axes.index(without))
                yield some, batch

    def _varying(self, axis: str) -> NDArray[np.bool_]:
        """Return which clips are not neutral on an axis."""
        position = self.axes.index(axis)
        return np.array([record.controls[position] != 0 for record in self.records])

    def _summary(self, true_NK: Floats, neutral: Mapping[str, Floats], times: Sequence[float]) -> dict[str, float]:
        values = {"loss": float(true_NK.mean())}
        gaps: list[Floats] = []
        for axis, neutral_NK in neutral.items():
            rows = self._varying(axis)
            values[f"loss/{axis}"] = float(true_NK[rows].mean())
            values[f"gap/{axis}"] = float((neutral_NK - true_NK)[rows].mean())
            gaps.append((neutral_NK - true_NK)[rows])
        if gaps:
            values["gap"] = float(np.concatenate(gaps).mean())
        for shape in sorted({record.shape for record in self.records}):
            rows = np.array([record.shape == shape for record in self.records])
            values[f"loss/size/{'x'.join(map(str, shape))}"] = float(true_NK[rows].mean())
        for column, time in enumerate(times):
            values[f"loss/time/{time:.3f}"] = float(true_NK[:, column].mean())
        return values


def times_of(flow: RectifiedFlow, count: int) -> Tensor:
    """Return the midpoints of `count` equal slices of a flow's training times, ascending, within what it trains."""
    if flow.time_range == (0.0, 1.0):
        return fixed_times(count, shift=flow.shift)
    ends = torch.tensor(flow.time_range, dtype=torch.float64)
    low, high = torch.special.ndtr(torch.logit(shift_times(ends, 1 / flow.shift).clamp(0, 1))).tolist()
    probability = low + (high - low) * (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return shift_times(torch.special.ndtri(probability).sigmoid(), flow.shift).float()


def spread(items: Sequence[Any], most: int) -> tuple[Any, ...]:
    """Return at most `most` items, evenly spread, in their order."""
    places = np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)
    return tuple(items[place] for place in places)


def _neutral(batch: Batch, position: int) -> Batch:
    """Return a batch with one axis at c = 0."""
    controls_BA = batch.tensors[CONTROLS_NAME].clone()
    controls_BA[:, position] = 0.0
    return Batch(clip_ids=batch.clip_ids, tensors={**batch.tensors, CONTROLS_NAME: controls_BA})
