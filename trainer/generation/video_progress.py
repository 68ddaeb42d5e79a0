"""How a generation shows itself: a live bar of denoising steps on a terminal, a line per video elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from generator.console.terminal import Console

if TYPE_CHECKING:
    from trainer.generation.plan import PlannedVideo


class GenerateProgress:
    """A `trainer.generation.make_videos.Watch` that shows videos and steps finished, and the time left."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False)
        columns = (
            TextColumn("{task.fields[videos]}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} steps"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = None if not self._console.is_terminal else self._bar.add_task("", total=None, videos="", visible=False)
        self.videos = 0
        self.finished = 0

    def __enter__(self) -> GenerateProgress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def note(self, words: str) -> None:
        """Say something worth knowing."""
        self._console.print(Text(words, style="dim"), soft_wrap=True)

    def started(self, videos: int, finished: int, steps: int) -> None:
        """Show the bar: what is left of `videos` takes `steps` steps each."""
        self.videos, self.finished = videos, finished
        if finished:
            self.note(f"{finished} of {videos} videos were finished before")
        if self._task is not None:
            self._bar.reset(self._task, total=(videos - finished) * steps, visible=finished < videos, videos=self._count())

    def stepped(self, steps: int) -> None:
        """Move the bar."""
        if self._task is not None:
            self._bar.advance(self._task, steps)

    def done(self, video: PlannedVideo) -> None:
        """Count a video; without a terminal, name it."""
        self.finished += 1
        if self._task is not None:
            self._bar.update(self._task, videos=self._count())
        else:
            self.note(f"{self._count()}: {video.name}")

    def _count(self) -> str:
        return f"{self.finished}/{self.videos} videos"
