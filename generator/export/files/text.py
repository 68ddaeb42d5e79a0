"""Small text formats, written so that the same content gives the same bytes: JSON lines, CSV, TOML and YAML values."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def json_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return one JSON object per line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def csv_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """Return a CSV table with a heading; quoted where needed, lines ended by a line feed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode()


def toml_value(value: Any) -> str:
    """Return a TOML value: text, number, truth or list. JSON's forms are TOML's, but for escapes outside the BMP."""
    return json.dumps(value, ensure_ascii=False)


def toml_lines(values: Mapping[str, Any]) -> list[str]:
    """Return `key = value` lines."""
    return [f"{key} = {toml_value(value)}" for key, value in values.items()]


def parquet(table: pa.Table) -> bytes:
    """Return a table as Parquet."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()
