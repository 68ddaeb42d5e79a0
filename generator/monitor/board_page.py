"""A board as one HTML page: no script, no other file, light and dark, and readable on a phone."""

from __future__ import annotations

from pathlib import Path

import jinja2

from generator.io.atomic import write_atomic
from generator.monitor.board import Board
from scenes.errors import InputError

TEMPLATE = "monitor.html.j2"
SHOWN_ROWS = 2000


def board_page(board: Board, *, refresh_s: int | None = None) -> str:
    """Return the page of a board; with `refresh_s` it loads itself again every so many seconds."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("generator"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return templates.get_template(TEMPLATE).render(board=board, refresh_s=refresh_s, rows=SHOWN_ROWS)


def check_page(out: Path) -> None:
    """Raise InputError for what is no .html file."""
    if out.suffix.lower() not in (".html", ".htm") or out.is_dir():
        raise InputError(f"{out} is no .html file; give a file name such as monitor.html")


def write_page(board: Board, out: Path, *, refresh_s: int | None = None) -> None:
    """Write the page of a board to a file, whole; raises InputError where it cannot be written."""
    check_page(out)
    try:
        write_atomic(out, board_page(board, refresh_s=refresh_s).encode())
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror}); give another --html") from error
