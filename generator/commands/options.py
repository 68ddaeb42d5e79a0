"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from generator.console.terminal import Console

RecipeFile = Annotated[Path, typer.Argument(help="The recipe, a .toml file.", show_default=False)]
DatasetFolder = Annotated[Path, typer.Argument(help="The dataset's folder.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe; repeatable. Example: render.samples=32"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of text for people.")]


@contextmanager
def counting(words: str, *, silent: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on the terminal's error stream for work that reports (done, in all); nothing when silent or no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=silent or not console.is_terminal) as bar:
        task = bar.add_task(words, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
