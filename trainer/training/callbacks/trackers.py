"""Where curves go beside the metric log: TensorBoard, and Weights & Biases where it is installed."""

from __future__ import annotations

import importlib.util
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from generator.io.atomic import write_atomic
from scenes.errors import InputError, closest
from trainer.training.callbacks.metrics import Event, Sink

PROJECT = "stopdown"
WANDB_RUN = "wandb-run.json"


def tags(event: Event) -> dict[str, float]:
    """Return an event's numbers by tag (`train/loss`, `machine/steps_per_s`); what could not be measured is left out."""
    named = {f"{event.kind}/{name}": value for name, value in event.values.items()}
    named |= {f"machine/{name}": value for name, value in event.machine.items() if name != "time_unix_s"}
    return {name: float(value) for name, value in named.items() if value is not None}


class TensorBoard:
    """Event files in the run's folder `tensorboard`; `tensorboard --logdir RUN` shows them."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder / "tensorboard"
        self._writer: Any = None

    def open(self, step: int, steps: int) -> None:
        """Begin a file; of earlier ones, what comes after `step` is hidden."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self.folder), purge_step=step + 1 if self.folder.exists() else None)

    def write(self, event: Event) -> None:
        """Add an event's numbers."""
        for tag, value in tags(event).items():
            self._writer.add_scalar(tag, value, event.step, walltime=event.machine.get("time_unix_s"))
        if event.kind != "train":
            self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class WeightsAndBiases:
    """A run in the project `stopdown`; its id lies in the run's folder, so that it goes on. WANDB_MODE=offline is respected.

    W&B cannot forget: where a killed run repeats steps, its curves there show both.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.settings = dict(settings)
        self._run: Any = None

    def open(self, step: int, steps: int) -> None:
        """Start the run, or go on with the one whose id is kept."""
        import wandb

        kept = self.folder / WANDB_RUN
        if not kept.exists():
            write_atomic(kept, json.dumps({"id": uuid.uuid4().hex[:12]}).encode())
        name = json.loads(kept.read_bytes())["id"]
        self._run = wandb.init(
            project=PROJECT, id=name, name=self.folder.name, dir=str(self.folder), resume="allow", config=self.settings
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")  # its own counter may not go back, a resumed run's steps do

    def write(self, event: Event) -> None:
        """Log an event's numbers."""
        self._run.log({"step": event.step, **tags(event)})

    def close(self) -> None:
        """End the run."""
        self._run.finish()


TRACKERS: dict[str, Callable[[Path, Mapping[str, Any]], Sink]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}


REMEDIES = {
    "tensorboard": "pip install 'stopdown[train]', or leave it out of train.trackers",
    "wandb": "pip install wandb, or leave wandb out of train.trackers",
}


def make_trackers(names: tuple[str, ...], folder: Path, settings: Mapping[str, Any]) -> tuple[Sink, ...]:
    """Return the trackers of a run; raises InputError as `check_trackers` does."""
    check_trackers(names)
    return tuple(TRACKERS[name](folder, settings) for name in names)


def check_trackers(names: Sequence[str]) -> None:
    """Raise InputError for an unknown tracker and for one that is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise InputError(f"tracker '{name}' is unknown{closest(name, TRACKERS)}; known are {', '.join(TRACKERS)}")
        if importlib.util.find_spec(name) is None:
            raise InputError(f"tracker '{name}' was asked for and {name} is not installed; {REMEDIES[name]}")
