"""`stopdown query`."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Annotated, Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import typer
from rich.table import Table
from rich.text import Text

from generator.commands.version_options import DatasetFolder, print_json
from generator.console.terminal import Console
from generator.versions.history.history import History
from generator.versions.reading.dataset import Dataset
from generator.versions.reading.query import TIME_LIMIT_S, query
from scenes.errors import InputError

_ROWS = 40


def command(
    dataset: DatasetFolder,
    question: Annotated[
        str, typer.Argument(metavar="SQL", help="A condition, or a whole SELECT ... FROM clips.", show_default=False)
    ],
    ref: Annotated[
        str | None, typer.Option("--ref", metavar="REF", help="The version to query; latest if not given.", show_default=False)
    ] = None,
    form: Annotated[Literal["table", "ids", "csv", "json"], typer.Option("--format", help="How to print the rows.")] = "table",
    time_limit: Annotated[
        float, typer.Option("--time-limit", metavar="SECONDS", help="Stop the query after this time.")
    ] = TIME_LIMIT_S,
) -> None:
    """Select clips of a version by their labels, in SQL (DuckDB). Example: "shutter_exposure_s < 0.01 AND layer = 9"."""
    found = query(_labels(History.open(dataset), ref), question, time_limit_s=time_limit)
    if form == "ids":
        if "clip_id" not in found.column_names:
            raise InputError("--format ids needs the column clip_id in the answer; select it")
        sys.stdout.writelines(f"{clip_id}\n" for clip_id in found["clip_id"].to_pylist())
    elif form == "json":
        print_json(found.to_pylist())
    elif form == "csv":
        flat = found.select([field.name for field in found.schema if not pa.types.is_nested(field.type)])
        text = pa.BufferOutputStream()
        pyarrow.csv.write_csv(flat, text)
        sys.stdout.write(text.getvalue().to_pybytes().decode())
    else:
        _print(found, question)


def _labels(history: History, ref: str | None) -> pa.Table:
    if ref is not None or history.refs.head() is not None:
        return Dataset(history, history.version(ref or "latest")).labels
    path = history.path / "labels.parquet"
    if not path.is_file():
        raise InputError(f"{history.path} has no version and no labels.parquet; finish its build first")
    sys.stderr.write("stopdown: no version yet, so this asks labels.parquet as it lies in the folder\n")
    return pq.read_table(path)


def _print(found: pa.Table, question: str) -> None:
    console = Console()
    narrow = [name for name in found.column_names if not name.startswith("sha256_") and name not in ("key", "lossless")]
    # A column of nulls, or of one value everywhere, tells a person nothing; --format json has all.
    shown = [name for name in narrow if found[name].null_count < len(found)] or narrow
    rows = [[_cell(value) for value in row.values()] for row in found.slice(0, _ROWS).select(shown).to_pylist()]
    table = Table(title=f"{found.num_rows:,} rows", title_justify="left")
    chosen = fitting(shown, rows, question, console.width)
    for place in chosen:
        table.add_column(shown[place], overflow="fold")
    for row in rows:
        table.add_row(*(Text(row[place]) for place in chosen))
    console.print(table)
    if found.num_rows > _ROWS or len(chosen) < len(shown):
        console.print("more rows or columns are there; --format csv or json prints all")


def _cell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def fitting(names: Sequence[str], rows: Sequence[Sequence[str]], question: str, width: int) -> list[int]:
    """Return the places of the columns that fit a terminal whole: the clip, those that the question names, then the rest.

    What the question names is always shown, folded where there is no room.
    """
    asked = {name for name in names if re.search(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])", question)}
    order = sorted(range(len(names)), key=lambda place: (names[place] != "clip_id", names[place] not in asked, place))
    chosen: list[int] = []
    room = width - 1
    for place in order:
        needed = 3 + max([len(names[place]), *(len(row[place]) for row in rows)])
        if needed <= room or not chosen or names[place] in asked:
            chosen.append(place)
            room -= needed
    return chosen
