"""The metric log: what was measured, step by step, in `metrics.jsonl` and wherever else it is sent.

A line is an event: {"step", "kind", "values", "machine", "check"}. `values` follow from the run's settings alone, so that two
runs can be compared line by line; `machine` holds what differs from run to run (the time of day, speed, memory); `check` is the
checksum of the rest (lines of earlier versions have none).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, Protocol, get_args

from generator.errors import DamagedError
from generator.io.atomic import write_atomic
from generator.io.checksummed_json import checksummed_line, parse_checksummed_line
from trainer.training.callbacks.surviving import surviving
from trainer.training.tasks.base import Task, TrainingProgress

Kind = Literal["train", "validation", "preview"]
FILE = "metrics.jsonl"
ENTRIES = {"step", "kind", "values", "machine"}


@dataclass(frozen=True, kw_only=True)
class Event:
    """What was measured after a step; a value is None where it could not be measured, or was no finite number."""

    step: int
    kind: Kind
    values: Mapping[str, float | None]
    machine: Mapping[str, float] = field(default_factory=dict)

    def line(self) -> str:
        """Return the event as a line of JSON."""
        values = {name: value if value is not None and math.isfinite(value) else None for name, value in self.values.items()}
        tree = {"step": self.step, "kind": self.kind, "values": values, "machine": dict(self.machine)}
        return checksummed_line(tree).decode() + "\n"


class Sink(Protocol):
    """Somewhere that events go: a file, a tracker, the terminal."""

    def open(self, step: int, steps: int) -> None:
        """A run starts or goes on after `step`; what was recorded of later steps is to be forgotten."""
        ...

    def write(self, event: Event) -> None:
        """Take an event."""
        ...

    def close(self) -> None:
        """The run ended, well or not."""
        ...


class MetricsFile:
    """`metrics.jsonl`: a line per event, on the disk as soon as it happened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recorded: set[tuple[int, Kind]] = set()  # the steps and kinds of the events in it
        self._file: IO[str] | None = None

    def open(self, step: int, steps: int) -> None:
        """Keep the events up to `step` and go on behind them; raises DamagedError for a file that is no metric log."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.recorded = set()
        if self.path.exists():
            events = [event for event in read_events(self.path) if event.step <= step]
            self.recorded = {(event.step, event.kind) for event in events}
            kept = "".join(event.line() for event in events).encode()
            if kept != self.path.read_bytes():
                write_atomic(self.path, kept)
        self._file = self.path.open("a", encoding="utf-8")

    def write(self, event: Event) -> None:
        """Append an event."""
        if self._file is None:
            raise ValueError(f"{self.path} is not open")
        self._file.write(event.line())
        self._file.flush()
        self.recorded.add((event.step, event.kind))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def read_events(path: Path) -> list[Event]:
    """Return the events of a metric log; a last line without its end is one that a kill cut short, and left out.

    Raises DamagedError naming the line that is no event.
    """
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    events = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            events.append(_event(parse_checksummed_line(line, optional=True)))
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedError(f"{path}, line {number} is no metric event ({error}); move the file away to go on") from None
    return events


def _event(tree: dict[str, Any]) -> Event:
    if set(tree) != ENTRIES:
        raise ValueError(f"its entries are {', '.join(sorted(tree))}")
    if tree["kind"] not in get_args(Kind):
        raise ValueError(f"kind {tree['kind']!r}")
    return Event(step=int(tree["step"]), kind=tree["kind"], values=dict(tree["values"]), machine=dict(tree["machine"]))


class MetricsLog:
    """The watcher that logs: every step, and what validation and previews tell it, to all its sinks in their order.

    The metric log is part of the run, and what it raises is raised. Any other sink may fail: that is said once, until it works
    again.
    """

    logs = True

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self.sinks = tuple(sinks)
        self._open: list[Sink] = []
        self._left_out: set[int] = set()  # could not be opened
        self._failing: set[int] = set()

    def started(self, task: Task, step: int, steps: int) -> None:
        """Open the sinks; one that cannot be opened is left out."""
        for sink in self.sinks:
            if isinstance(sink, MetricsFile):
                sink.open(step, steps)
                self._open.append(sink)
                continue
            self._left_out.add(id(sink))
            with surviving(f"{type(sink).__name__}, which is left out,"):
                sink.open(step, steps)
                self._open.append(sink)
                self._left_out.discard(id(sink))

    def stepped(self, task: Task, progress: TrainingProgress) -> None:
        """Log a step."""
        values = {
            "loss": progress.loss,
            "learning_rate": progress.learning_rate,
            "gradient_norm": progress.gradient_norm,
        }
        speed = {"steps_per_s": progress.steps_per_s, "peak_memory_bytes": float(progress.peak_memory_bytes)}
        self.write(progress.step, "train", values, speed)

    def write(
        self, step: int, kind: Kind, values: Mapping[str, float | None], machine: Mapping[str, float] | None = None
    ) -> None:
        """Log anything else that was measured after a step."""
        event = Event(step=step, kind=kind, values=values, machine={"time_unix_s": round(time.time(), 3), **(machine or {})})
        for sink in self.sinks:
            if isinstance(sink, MetricsFile):
                sink.write(event)
            elif id(sink) not in self._left_out:
                self._try(sink, event)

    def lacks(self, step: int, kind: Kind) -> bool:
        """Return whether the metric log of the run that goes on has no such event; False where there is no metric log."""
        logs = [sink for sink in self.sinks if isinstance(sink, MetricsFile)]
        return bool(logs) and all((step, kind) not in log.recorded for log in logs)

    def finished(self, task: Task, step: int) -> None:
        """Close the sinks that were opened, the last one first."""
        while self._open:
            sink = self._open.pop()
            with surviving(f"closing {type(sink).__name__}"):
                sink.close()

    def _try(self, sink: Sink, event: Event) -> None:
        try:
            sink.write(event)
            self._failing.discard(id(sink))
        except Exception:
            if id(sink) not in self._failing:
                self._failing.add(id(sink))
                with surviving(f"{type(sink).__name__}"):
                    raise
