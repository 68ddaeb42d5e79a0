"""A board as a live view in the terminal (Textual), looked at again every few seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import DataTable, Footer, Label, Static
from textual.worker import get_current_worker

from generator.monitor.board import STYLES, Board, BoardGrid, head_text, notes_text
from scenes.errors import StopdownError

Look = Callable[[], Board]


class MonitorApp(App[None]):
    """Shows boards until it is left; the look runs in a thread, so that a slow store does not freeze the screen."""

    TITLE = "Stopdown monitor"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #head { padding: 1 2 0 2; height: auto; }
    #trouble { padding: 0 2; height: auto; color: $error; }
    #notes { padding: 1 2 0 2; height: auto; }
    .grid-name { padding: 1 2 0 2; color: $text-muted; }
    DataTable { height: auto; margin: 0 2; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("r", "look", "Look now"),
        Binding("t", "toggle_trouble", "Only trouble"),
    ]

    def __init__(self, look: Look, *, every_s: float) -> None:
        super().__init__()
        self._look = look
        self._every_s = every_s
        self._one_look = threading.Lock()
        self._only_trouble = False
        self.board: Board | None = None
        self.looks = 0

    def compose(self) -> ComposeResult:
        """Lay out what stays: head, trouble, notes and room for grids."""
        with VerticalScroll():
            yield Static("looking …", id="head")
            yield Static("", id="trouble")
            yield Static("", id="notes")
            yield VerticalScroll(id="grids")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to look."""
        self.keep_looking()

    @work(thread=True, exclusive=True)
    def keep_looking(self) -> None:
        """Look, show, wait; until nothing more will come or the view is left."""
        worker = get_current_worker()
        while not worker.is_cancelled:
            board, trouble = self._looked()
            if worker.is_cancelled:  # the view was left, or looks anew, meanwhile
                return
            if board is None:
                self.call_from_thread(self.show_trouble, trouble)
            else:
                self.call_from_thread(self.show_board, board)
                if board.over:
                    return
            until_s = time.monotonic() + self._every_s
            while not worker.is_cancelled and time.monotonic() < until_s:
                time.sleep(min(0.1, self._every_s))

    def _looked(self) -> tuple[Board | None, str]:
        """Return the board of one look, or why there is none."""
        with self._one_look:  # a look that was begun anew waits for the one before
            try:
                return self._look(), ""
            except StopdownError as error:
                return None, str(error)

    def show_board(self, board: Board) -> None:
        """Show a board in the place of the one before."""
        self.board = board
        self.looks += 1
        self.query_one("#head", Static).update(head_text(board))
        self.query_one("#trouble", Static).update("")
        self.query_one("#notes", Static).update(notes_text(board))
        for grid in board.grids:
            self._show_grid(grid)

    def show_trouble(self, words: str) -> None:
        """Say that the last look failed; what was seen before stays."""
        self.query_one("#trouble", Static).update(Text(words))

    def action_look(self) -> None:
        """Look now."""
        self.keep_looking()

    def action_toggle_trouble(self) -> None:
        """Show all rows, or only those in trouble."""
        self._only_trouble = not self._only_trouble
        if self.board is not None:
            for grid in self.board.grids:
                self._show_grid(grid)

    def _show_grid(self, grid: BoardGrid) -> None:
        place = self.query_one("#grids", VerticalScroll)
        name = f"grid-{grid.name}"
        found = self.query(f"#{name}").results(DataTable)
        table: DataTable[Text] | None = next(iter(found), None)
        if table is None:
            if not grid.rows:
                return
            table = DataTable(id=name, cursor_type="row", zebra_stripes=True)
            place.mount(Label(grid.name, classes="grid-name"), table)
            for column in grid.columns:
                table.add_column(column)
        at = table.cursor_row
        table.clear()
        for row in grid.rows:
            if not self._only_trouble or row.tone in ("warn", "bad"):
                style = STYLES[row.tone]
                cells = [
                    Text(cell, style=style, justify="right" if index in grid.numeric else "left")
                    for index, cell in enumerate(row.cells)
                ]
                table.add_row(*cells)
        table.move_cursor(row=min(at, max(0, table.row_count - 1)))
