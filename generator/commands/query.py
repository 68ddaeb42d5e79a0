"""`stopdown query`."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import typer
from rich.table import Table
from rich.text import Text

from generator.commands.version_options import DatasetFolder, print_json
from generator.terminal import Console
from generator.versions.history import History
from generator.versions.query import TIME_LIMIT_S, query
from generator.versions.snapshot import Snapshot
from scenes.errors import InputError

_ROWS = 40


def command(
    dataset: DatasetFolder,
    question: Annotated[
        str, typer.Argument(metavar="SQL", help="A condition, or a whole SELECT ... FROM clips.", show_default=False)
    ],
    ref: Annotated[
        str | None, typer.Option("--ref", metavar="REF", help="Ask this version. Default: latest.", show_default=False)
    ] = None,
    form: Annotated[Literal["table", "ids", "csv", "json"], typer.Option("--format", help="How to print the rows.")] = "table",
    time_limit: Annotated[float, typer.Option("--time-limit", metavar="SECONDS", help="Give up after so long.")] = TIME_LIMIT_S,
) -> None:
    """Ask the labels of a version in SQL (DuckDB), as in "shutter_exposure_s < 0.01 AND layer = 9"."""
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
        _print(found)


def _labels(history: History, ref: str | None) -> pa.Table:
    if ref is not None or history.refs.head() is not None:
        return Snapshot(history, history.version(ref or "latest")).labels
    path = history.path / "labels.parquet"
    if not path.is_file():
        raise InputError(f"{history.path} has no version and no labels.parquet; finish its build first")
    sys.stderr.write("stopdown: no version yet, so this asks labels.parquet as it lies in the folder\n")
    return pq.read_table(path)


def _print(found: pa.Table) -> None:
    console = Console()
    narrow = [name for name in found.column_names if not name.startswith("sha256_") and name not in ("key", "lossless")]
    # A column of nulls, or of one value everywhere, tells a person nothing; --format json has all.
    shown = [name for name in narrow if found[name].null_count < len(found)] or narrow
    table = Table(*shown[:10], title=f"{found.num_rows:,} rows", title_justify="left")
    for row in found.slice(0, _ROWS).select(shown[:10]).to_pylist():
        table.add_row(*(Text(f"{value:.6g}" if isinstance(value, float) else str(value)) for value in row.values()))
    console.print(table)
    if found.num_rows > _ROWS or len(shown) > 10:
        console.print("more rows or columns are there; --format csv or json prints all")
