"""How a build shows itself: a live bar on a terminal, plain lines elsewhere, JSON lines for machines."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any, Protocol, TextIO

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from generator.console.terminal import Console

SHOWN_WORKERS = 8
PLAIN_EVERY_S = 10.0
PLAIN_STEPS = 20


class Progress(Protocol):
    """What a build tells; every method returns at once."""

    def start(self, clips: int, finished: int) -> None:
        """Begin: the clips of the plan, and how many an earlier build finished."""
        ...

    def worker(self, number: int, state: str) -> None:
        """Say what a render process is doing."""
        ...

    def done(self, clip_id: str) -> None:
        """Count a finished clip."""
        ...

    def failed(self, clip_id: str, message: str) -> None:
        """Report a clip that failed for good."""
        ...

    def note(self, words: str) -> None:
        """Say something worth knowing: a retry, a restart."""
        ...

    def close(self) -> None:
        """End, however the build ended."""
        ...


def make_progress(stream: TextIO, *, json_lines: bool = False) -> Progress:
    """Return JSON lines if asked for, a live bar if the stream is a terminal, otherwise plain lines."""
    if json_lines:
        return JsonProgress(stream)
    return LiveProgress(stream) if stream.isatty() else PlainProgress(stream)


class _Rate:
    """Clips finished by this run, their rate, and the seconds left."""

    def __init__(self, clips: int = 0, finished: int = 0) -> None:
        self.clips, self.earlier, self.now = clips, finished, 0
        self.start_s = time.monotonic()

    @property
    def finished(self) -> int:
        return self.earlier + self.now

    @property
    def clips_per_s(self) -> float:
        return self.now / max(1e-9, time.monotonic() - self.start_s)

    @property
    def eta_s(self) -> float | None:
        return (self.clips - self.finished) / self.clips_per_s if self.now else None


class PlainProgress:
    """One line every twentieth of the clips, or every ten seconds, and one for each failure or note."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._rate = _Rate()
        self._said, self._said_s = 0, time.monotonic()

    def start(self, clips: int, finished: int) -> None:
        """Say how much there is to do."""
        self._rate = _Rate(clips, finished)
        self._said, self._said_s = finished, time.monotonic()
        self._print(f"{clips} clips, {finished} finished before" if finished else f"{clips} clips")

    def worker(self, number: int, state: str) -> None:
        """Say nothing: states are for the live bar."""

    def done(self, clip_id: str) -> None:
        """Count, and say so now and then."""
        rate = self._rate
        rate.now += 1
        due = rate.finished == rate.clips or rate.finished - self._said >= rate.clips / PLAIN_STEPS
        if due or time.monotonic() - self._said_s >= PLAIN_EVERY_S:
            self._said, self._said_s = rate.finished, time.monotonic()
            left = "" if rate.eta_s is None else f", {_duration(rate.eta_s)} left"
            self._print(f"{rate.finished}/{rate.clips} clips, {rate.clips_per_s:.2f} clips/s{left}")

    def failed(self, clip_id: str, message: str) -> None:
        """Say which clip failed."""
        self._print(f"clip {clip_id} failed: {message}")

    def note(self, words: str) -> None:
        """Say it."""
        self._print(words)

    def close(self) -> None:
        """Nothing is left to say."""

    def _print(self, words: str) -> None:
        print(words, file=self._stream, flush=True)


class JsonProgress:
    """One JSON object a line, `event` saying which: start, worker, done, failed, note."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._rate = _Rate()

    def start(self, clips: int, finished: int) -> None:
        """Write the start."""
        self._rate = _Rate(clips, finished)
        self._write("start", clips=clips, finished=finished)

    def worker(self, number: int, state: str) -> None:
        """Write the state of a render process."""
        self._write("worker", worker=number, state=state)

    def done(self, clip_id: str) -> None:
        """Write a finished clip, with rate and seconds left."""
        rate = self._rate
        rate.now += 1
        eta_s = None if rate.eta_s is None else round(rate.eta_s, 1)
        counts = {"finished": rate.finished, "clips": rate.clips}
        self._write("done", clip_id=clip_id, **counts, clips_per_s=round(rate.clips_per_s, 3), eta_s=eta_s)

    def failed(self, clip_id: str, message: str) -> None:
        """Write a failed clip."""
        self._write("failed", clip_id=clip_id, message=message)

    def note(self, words: str) -> None:
        """Write a note."""
        self._write("note", message=words)

    def close(self) -> None:
        """Nothing is left to write."""

    def _write(self, event: str, **entries: Any) -> None:
        print(json.dumps({"event": event, **entries}), file=self._stream, flush=True)


class LiveProgress:
    """A live bar with clips/s, the time left, and what each render process is doing."""

    def __init__(self, stream: TextIO) -> None:
        console = Console(file=stream, highlight=False)
        self._rate = _Rate()
        self._states: dict[int, str] = {}
        self._bar = Bar(
            BarColumn(),
            MofNCompleteColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task("clips", total=None, rate="")
        self._live = Live(get_renderable=self._picture, console=console, refresh_per_second=8, transient=False)

    def start(self, clips: int, finished: int) -> None:
        """Show the bar."""
        self._rate = _Rate(clips, finished)
        self._bar.reset(self._task, total=clips, completed=finished, rate="")
        self._live.start()

    def worker(self, number: int, state: str) -> None:
        """Show what a render process is doing."""
        self._states[number] = state

    def done(self, clip_id: str) -> None:
        """Move the bar."""
        self._rate.now += 1
        self._bar.update(self._task, completed=self._rate.finished, rate=f"{self._rate.clips_per_s:.2f} clips/s")

    def failed(self, clip_id: str, message: str) -> None:
        """Print above the bar which clip failed."""
        self._live.console.print(Text(f"clip {clip_id} failed: {message}", style="red"))

    def note(self, words: str) -> None:
        """Print above the bar."""
        self._live.console.print(Text(words, style="yellow"))

    def close(self) -> None:
        """Leave the bar as it stands, without the render processes."""
        self._states.clear()
        self._live.stop()

    def _picture(self) -> RenderableType:
        if len(self._states) <= SHOWN_WORKERS:
            lines = [f"  {number + 1}: {state}" for number, state in sorted(self._states.items())]
        else:
            kinds = Counter(state.split()[0] for state in self._states.values())
            lines = ["  " + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())]
        return Group(self._bar, *(Text(line, style="dim", overflow="ellipsis", no_wrap=True) for line in lines))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
