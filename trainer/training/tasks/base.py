"""What the training loop asks of what it trains, and what it tells those who watch.

Nothing here draws randomness of its own: a batch is a function of (seed, micro-step), and `losses` draws from the generator
that it is handed, which the loop seeds from (seed, micro-step, rank). So a resumed run repeats an uninterrupted one.

Shapes: B the clips of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trainer.control import WanAdapter
from trainer.data.batch import Batch


class Task(Protocol):
    """Something to train; `trainer.methods` holds what there is."""

    name: str
    adapters: Mapping[str, WanAdapter]  # under training, by component name; none where a whole model trains
    module: nn.Module  # what accelerate prepares and compiles; holds all of `parameters()`

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return all that trains, by the names under which checkpoints keep it."""
        ...

    def micro_batch(self, micro_step: int, rank: int, ranks: int) -> Batch:
        """Return the batch of a micro-step for one of `ranks` processes; depends on nothing else."""
        ...

    def losses(self, batch: Batch, generator: torch.Generator, module: nn.Module) -> Tensor:
        """Return the loss of every clip [B], float32; `module` is `self.module` as prepared (compiled, wrapped)."""
        ...

    def before_step(self, step: int) -> None:
        """Do what depends on the step about to be made (counted from 0), such as the ramp of the control attention."""
        ...

    def save(self, folder: Path, step: int, averaged: Mapping[str, Tensor] | None) -> None:
        """Write what a user takes away (an adapter's folder, a model), with the averaged parameters where there are such."""
        ...

    def save_beside(self, checkpoint: Path, step: int, weights: Mapping[str, Tensor]) -> None:
        """Write into a checkpoint's folder what makes it usable as it is, with `weights` by name; nothing if that is large."""
        ...


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """How far a run is: what a watcher (`Watcher`) is told after every optimizer step."""

    step: int  # optimizer steps made
    steps: int  # optimizer steps in all
    loss: float  # mean over the step's clips of all ranks
    learning_rate: float
    gradient_norm: float
    steps_per_s: float
    peak_memory_bytes: int
    clip_ids: tuple[str, ...]


class Callback(Protocol):
    """Told about a run by the loop, on the first process only: progress bar, metric files, trackers, validation, previews.

    Watching changes no weight and no random state: the run is the same with and without callbacks. A watcher that `logs` is
    told of a step before its checkpoint is written, so that a run that goes on from it has the record of every step before;
    what it raises ends the run. The others measure, which takes time and may fail: they are told after the checkpoint, and
    what they raise is logged. Where a run died in between, `started` makes up what was due at `step`.
    """

    logs: bool

    def started(self, task: Task, step: int, steps: int) -> None:
        """A run starts or goes on at `step`: what was recorded after it belongs to a run that died and is made again; cut it.

        Every record up to `step` must still be there, so write each one out before `stepped` returns. Raises InputError for
        what cannot be done at all, before any step is made.
        """
        ...

    def stepped(self, task: Task, progress: TrainingProgress) -> Mapping[str, Any] | None:
        """A step was made; return what was measured, if anything, as flat name -> number, for the metric log."""
        ...

    def finished(self, task: Task, step: int) -> None:
        """The run ended, well or not: close what is open."""
        ...
