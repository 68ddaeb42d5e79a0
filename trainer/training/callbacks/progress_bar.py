"""How a training run shows itself: a live bar on a terminal, plain lines elsewhere (CI, Slurm)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from generator.console.terminal import Console
from scenes.axes import AXES
from trainer.training.callbacks.metrics import Event, Sink

PLAIN_EVERY_S = 30.0
DECAY = 0.95  # of the shown loss: about the last 20 steps


class Smoothed:
    """An exponential mean that is unbiased from its first value on."""

    def __init__(self, decay: float = DECAY) -> None:
        self._decay, self._sum, self._weight = decay, 0.0, 0.0

    def add(self, value: float) -> float:
        """Take a value; returns the mean."""
        self._sum = self._decay * self._sum + value
        self._weight = self._decay * self._weight + 1.0
        return self._sum / self._weight


def make_progress_sink(stream: TextIO) -> Sink:
    """Return a live bar if the stream is a terminal, otherwise plain lines."""
    return LiveBar(stream) if stream.isatty() else PlainLines(stream)


class PlainLines:
    """One line for the first step, the last, and every 30 seconds between; one for each validation and preview."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._steps, self._said_s, self._loss = 0, -1e9, Smoothed()

    def open(self, step: int, steps: int) -> None:
        """Say where the run starts."""
        self._steps, self._said_s, self._loss = steps, -1e9, Smoothed()
        self._print(f"training to step {steps}, from step {step}" if step else f"training to step {steps}")

    def write(self, event: Event) -> None:
        """Say what is due."""
        if event.kind != "train":
            self._print(summary(event))
            return
        loss, now_s = self._loss.add(event.values["loss"] or 0.0), self._clock()
        if now_s - self._said_s >= PLAIN_EVERY_S or event.step == self._steps:
            self._said_s = now_s
            self._print(f"step {event.step}/{self._steps}, {facts(event, loss, self._steps)}")

    def close(self) -> None:
        """Nothing is left to say."""

    def _print(self, words: str) -> None:
        print(words, file=self._stream, flush=True)


class LiveBar:
    """A live bar with loss, learning rate, steps/s, time left and peak memory."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False)
        self._loss = Smoothed()
        self._steps = 0
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[facts]}"))
        self._bar = Progress(*columns, console=self._console, refresh_per_second=4)
        self._task = self._bar.add_task("steps", total=None, facts="")

    def open(self, step: int, steps: int) -> None:
        """Show the bar."""
        self._steps, self._loss = steps, Smoothed()
        self._bar.reset(self._task, total=steps, completed=step, facts="")
        self._bar.start()

    def write(self, event: Event) -> None:
        """Move the bar, or print above it."""
        if event.kind != "train":
            self._bar.console.print(summary(event), markup=False)
            return
        loss = self._loss.add(event.values["loss"] or 0.0)
        self._bar.update(self._task, completed=event.step, facts=facts(event, loss, self._steps))

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.stop()


def facts(event: Event, loss: float, steps: int) -> str:
    """Return what a bar says of a step: smoothed loss, learning rate, speed, time left, peak memory."""
    speed = event.machine["steps_per_s"]
    return (
        f"loss {loss:.4g}, lr {event.values['learning_rate'] or 0.0:.3g}, {speed:.3g} steps/s, "
        f"{duration((steps - event.step) / max(speed, 1e-9))} left, {event.machine['peak_memory_bytes'] / 2**30:.2f} GiB"
    )


def summary(event: Event) -> str:
    """Return a validation or a preview as one line: its numbers without those of single sizes, times and videos."""
    if event.kind == "preview":
        axes = dict.fromkeys(name.split("/")[0] for name in event.values)
        words = "; ".join(_sweeps(axis, event) for axis in axes) or "nothing is controlled"
    else:
        shown = {name: value for name, value in event.values.items() if name.count("/") < 2 and value is not None}
        words = ", ".join(f"{name} {value:.4g}" for name, value in shown.items())
    return f"{event.kind} at step {event.step}: {words}"


def _sweeps(axis: str, event: Event) -> str:
    """Return what the probes read of an axis: how many videos, and what those say together."""
    found = {name: event.values.get(f"{axis}/{name}") for name in ("readable", "videos", "rho", "slope", "median_error")}
    words = [f"{axis} {found['readable'] or 0:.0f} of {found['videos'] or 0:.0f} read"]
    words += [f"{name} {found[name]:.2f}" for name in ("rho", "slope") if found[name] is not None]
    if found["median_error"] is not None:
        words.append(f"median error {found['median_error']:.3g} {AXES[axis].error_unit}")
    return ", ".join(words)


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
