"""A board: what a monitor shows, as plain data, and as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

Tone = Literal["good", "busy", "warn", "bad", "plain"]
STYLES: dict[Tone, str] = {"good": "green", "busy": "cyan", "warn": "yellow", "bad": "red", "plain": ""}
SHOWN_ROWS = 24
BAR_WIDTH = 32


@dataclass(frozen=True, kw_only=True)
class Meter:
    """How far something is: done of total, and more in words."""

    name: str
    done: int
    total: int
    words: str = ""

    @property
    def percent(self) -> float:
        """The share that is done, in per cent, never rounded up to all of it."""
        return 100.0 if self.done >= self.total else min(99.9, 100.0 * self.done / self.total)


@dataclass(frozen=True, kw_only=True)
class BoardRow:
    """A row of a grid; the tone says how it fares."""

    cells: tuple[str, ...]
    tone: Tone = "plain"


@dataclass(frozen=True, kw_only=True)
class BoardGrid:
    """A table; rows come in the order of their interest, so that a short view may leave out the last ones.

    `numeric` are columns that are set to the right, `spare` those that a narrow view leaves out, the first one first.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[BoardRow, ...]
    numeric: frozenset[int] = frozenset()
    spare: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Board:
    """Everything a monitor shows at one moment; `numbers` is the same for machines, `over` says that nothing more will come."""

    title: str
    state: str
    tone: Tone
    at: datetime
    over: bool = False
    facts: tuple[tuple[str, str], ...] = ()
    meters: tuple[Meter, ...] = ()
    grids: tuple[BoardGrid, ...] = ()
    notes: tuple[tuple[Tone, str], ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)


def board_text(board: Board, *, width: int, rows: int | None = SHOWN_ROWS) -> RenderableType:
    """Return a board for rich to draw on `width` columns of characters, at most `rows` rows of each grid."""
    grids = (part for grid in board.grids for part in _grid_text(grid, rows, width))
    return Group(head_text(board), *grids, notes_text(board))


def head_text(board: Board) -> RenderableType:
    """Return title, state, meters and facts for rich to draw."""
    title = Text.assemble((board.title, "bold"), "  ", (board.state, STYLES[board.tone] or "none"), overflow="fold")
    meters = Table.grid(padding=(0, 1))
    for meter in board.meters:
        style = "green" if meter.done >= meter.total else "cyan"
        bar = ProgressBar(total=max(1, meter.total), completed=min(meter.done, meter.total), width=BAR_WIDTH)
        bar.complete_style = bar.finished_style = style
        count = f"{meter.done:,}/{meter.total:,}  {meter.percent:.1f} %"
        meters.add_row(Text(meter.name), bar, Text(count), Text(meter.words, style="dim"))
    facts = Text("   ").join(Text.assemble((f"{name} ", "dim"), value) for name, value in board.facts)
    return Group(title, *([meters] if board.meters else []), *([facts] if board.facts else []))


def notes_text(board: Board) -> RenderableType:
    """Return the notes for rich to draw, one line each."""
    return Group(*(Text(words, style=STYLES[tone] or "none", overflow="fold") for tone, words in board.notes))


def _grid_text(grid: BoardGrid, rows: int | None, width: int) -> list[RenderableType]:
    if not grid.rows:
        return []
    shown = grid.rows[:rows]
    columns = _columns(grid, shown, width)
    table = Table(box=None, header_style="dim", pad_edge=False, show_edge=False)
    for index in columns:
        last = index == columns[-1]  # the one that may be long
        justify: Literal["left", "right"] = "right" if index in grid.numeric else "left"
        table.add_column(grid.columns[index], justify=justify, no_wrap=not last, overflow="fold")
    for row in shown:
        table.add_row(*(Text(row.cells[index]) for index in columns), style=STYLES[row.tone] or None)
    left = len(grid.rows) - len(shown)
    return [Text(), table, *([Text(f"and {left} more {grid.name}", style="dim")] if left else [])]


def _columns(grid: BoardGrid, rows: tuple[BoardRow, ...], width: int) -> list[int]:
    """Return the columns to show: not those with nothing in them, nor spare ones that do not fit."""
    columns = [index for index in range(len(grid.columns)) if any(row.cells[index] for row in rows)]
    wide = {index: max(len(grid.columns[index]), *(len(row.cells[index]) for row in rows)) for index in columns}
    for index in grid.spare:
        if sum(wide[column] + 2 for column in columns) > width and index in columns:
            columns.remove(index)
    return columns


def in_words(seconds: float) -> str:
    """Return a duration in the two largest units that it has."""
    whole = max(0, round(seconds))
    for unit, size, small, part in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part:02d} {small}"
    return f"{whole} s"
