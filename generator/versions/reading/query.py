"""Questions to the label table in SQL, answered by DuckDB; a question can read the table and nothing else."""

from __future__ import annotations

import re
import threading

import duckdb
import pyarrow as pa

from scenes.errors import InputError

TABLE = "clips"
TIME_LIMIT_S = 60.0
MEMORY_LIMIT = "2GB"  # of DuckDB's own; a million rows of labels take a fifth of it


def query(labels: pa.Table, question: str, *, time_limit_s: float = TIME_LIMIT_S) -> pa.Table:
    """Return the rows that meet a condition (`shutter_exposure_s < 0.01 AND layer = 9`), or the result of a whole SELECT.

    The table is called `clips`. No file, network or setting can be reached from the question, and it is stopped after
    `time_limit_s` seconds. Raises InputError in one line.
    """
    if not time_limit_s > 0:
        raise InputError(f"a time limit of {time_limit_s:g} s; give more than 0")
    question = question.strip().rstrip(";")
    if not question:
        raise InputError('the question is empty; give a condition such as "layer = 9", or SELECT ... FROM clips')
    whole = re.match(r"(?i)(select|with|from|summarize|describe)\b", question)
    return _run(labels, question if whole else f"SELECT * FROM {TABLE} WHERE ({question}\n)", time_limit_s)


def positions_where(labels: pa.Table, condition: str) -> list[int]:
    """Return the positions of the rows that meet a condition, in order."""
    numbered = labels.append_column("row_position_", pa.array(range(labels.num_rows), pa.int64()))
    found = _run(numbered, f"SELECT row_position_ FROM {TABLE} WHERE ({condition}\n) ORDER BY row_position_", TIME_LIMIT_S)
    return [int(position) for position in found["row_position_"].to_pylist()]


def _run(labels: pa.Table, question: str, time_limit_s: float) -> pa.Table:
    question.encode()  # raises UnicodeError for half a character, which DuckDB takes for another type
    # Split by scene and shared buffers are of no use to SQL; maps and text pass through Arrow as they are.
    connection = duckdb.connect(":memory:", config={"threads": 1, "memory_limit": MEMORY_LIMIT})
    alarm = threading.Timer(min(time_limit_s, threading.TIMEOUT_MAX), connection.interrupt)
    alarm.daemon = True
    try:
        connection.register(TABLE, labels)
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        statements = connection.extract_statements(question)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise InputError("a question is one SELECT, or the condition of one; nothing else is run")
        alarm.start()
        return connection.sql(question).to_arrow_table()
    except duckdb.InterruptException:
        raise InputError(
            f"the question was not answered within {time_limit_s:g} s; ask a simpler one, or give a longer --time-limit"
        ) from None
    except duckdb.Error as error:
        line = str(error).splitlines()[0]
        raise InputError(f"the question cannot be answered ({line}); columns: {', '.join(labels.column_names)}") from None
    finally:
        alarm.cancel()
        connection.close()
