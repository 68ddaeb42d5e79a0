"""The rich console of every command: text from data cannot command the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment

from generator.console.streams import CONTROLS

_REMOVED = dict.fromkeys(CONTROLS)


class Console(rich.console.Console):
    """A rich console for text from data: no control character of it is printed, and no [bracket] is taken for a style."""

    def __init__(self, *, markup: bool = False, **options: Any) -> None:
        super().__init__(markup=markup, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of something to print, cleaned."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=segment.text.translate(_REMOVED))

    def on_broken_pipe(self) -> NoReturn:
        """Leave the end of the command to the one place that ends commands."""
        raise BrokenPipeError
