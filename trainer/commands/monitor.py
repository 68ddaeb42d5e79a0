"""`stopdown monitor`. It needs neither torch nor Blender: it reads what builds, runs and trainings write."""

from __future__ import annotations

import importlib.util
import json as json_module
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from generator.commands.options import Json
from generator.commands.remote_options import Anonymous, Endpoint, Region
from generator.console.terminal import Console
from scenes.errors import InputError

if TYPE_CHECKING:
    from generator.monitor.board import Board

LIVE_EVERY_S = 3.0
PAGE_EVERY_S = 10.0
LEAST_EVERY_S = 0.5


def command(
    place: Annotated[
        str,
        typer.Argument(
            metavar="DATASET|RUN", help="A dataset's folder or s3://BUCKET/PREFIX, or the folder of a run.", show_default=False
        ),
    ],
    once: Annotated[bool, typer.Option("--once", help="Print the current state as text, and exit.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write the current state as an HTML page.")] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="With --html: write the page again and again until all is done.")
    ] = False,
    every: Annotated[float | None, typer.Option(help="Seconds between updates; 3, or 10 for a page, if not given.")] = None,
    endpoint: Endpoint = None,
    region: Region = None,
    anonymous: Anonymous = False,
    json: Json = False,
) -> None:
    """Watch a build, a run or a training in progress: clips, workers, rates, failures, and the time left.

    Works on any machine that sees the dataset's folder or storage, and changes nothing there.
    """
    if watch and html is None:
        raise InputError("--watch writes a page again and again; give it a file with --html FILE")
    if every is not None and not every >= LEAST_EVERY_S:
        raise InputError(f"--every {every:g}: give at least {LEAST_EVERY_S:g} seconds")
    live = not (once or json or html is not None)
    if live:
        _check_live()
    look = _look(place, endpoint, region, anonymous)
    if live:
        from generator.monitor.board_app import MonitorApp

        MonitorApp(look, every_s=every or LIVE_EVERY_S).run()
        return
    if html is not None:
        _write(look, html, (every or PAGE_EVERY_S) if watch else None)
    if once:
        from generator.monitor.board import board_text

        console = Console(highlight=False)
        console.print(board_text(look(), width=console.width))
    if json:
        print(json_module.dumps(look().numbers))


def _check_live() -> None:
    if not sys.stdout.isatty():
        raise InputError("the live view needs a terminal; give --once, --json or --html FILE")
    if importlib.util.find_spec("textual") is None:
        raise InputError(
            "the live view needs textual, which is not installed; run `pip install 'stopdown[monitor]'`, or give --once"
        )


def _look(place: str, endpoint: str | None, region: str | None, anonymous: bool) -> Callable[[], Board]:
    """Return what looks at a place; raises InputError for one that is neither a dataset, nor a run, nor a training."""
    from generator.monitor.build_board import build_board
    from generator.monitor.watch_build import watch_build
    from generator.remotes.base import RemoteOptions
    from trainer.runs.watch_run import watch_run

    run = None if "://" in place or not place.strip() else watch_run(Path(place))
    if run is not None:
        return run.look
    build = watch_build(place, RemoteOptions(endpoint=endpoint, region=region, anonymous=anonymous))
    return lambda: build_board(build.look())


def _write(look: Callable[[], Board], out: Path, every_s: float | None) -> None:
    """Write the page of a look; with `every_s` again and again, until nothing more will come."""
    from generator.monitor.board_page import check_page, write_page

    check_page(out)
    console = Console(stderr=True, highlight=False)
    while True:
        board = look()
        again = every_s is not None and not board.over
        write_page(board, out, refresh_s=max(1, round(every_s)) if again and every_s is not None else None)
        console.print(f"{out}: {board.title}, {board.state}", markup=False, soft_wrap=True)
        if not again or every_s is None:
            return
        time.sleep(every_s)
