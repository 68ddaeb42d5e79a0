"""`stopdown verify`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from generator.commands.options import DatasetFolder, Json, counting
from generator.dataset import Dataset
from generator.verify import verify
from generator.verify_plot import plot_report
from generator.verify_print import print_report


def command(
    dataset: DatasetFolder,
    plot: Annotated[
        Path | None, typer.Option(help="Where to draw measured against labelled; DATASET/verify.png if not given.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that read and probe; one per core if not given.")] = None,
    json: Json = False,
) -> None:
    """Prove a dataset: every file's hash, every label's range, and every probe, blind; exit code 1 past the tolerances."""
    opened = Dataset.open(dataset)
    with counting("verifying", silent=json) as progress:
        report = verify(opened, progress, workers=workers if workers is not None else os.cpu_count() or 1)
    picture = plot if plot is not None else dataset / "verify.png"
    plot_report(report, picture)
    if json:
        print(report.model_dump_json(indent=1))
    else:
        print_report(report, Console())
        print(f"plot: {picture}")
    raise typer.Exit(report.exit_code)
