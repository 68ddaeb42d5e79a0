"""A mapping that lies on the disk: what a build's end must look up, however many clips there are, in a few megabytes."""

from __future__ import annotations

import errno
import sqlite3
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_CACHE_KB = 2048
_PAGE = 1024


class SpillMap(Mapping[str, Any]):
    """Texts, numbers or bytes by text, in a temporary file that ends with the context, for any thread; keys come in order.

    A disk that refuses is an OSError, as of any other file.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="stopdown-map-")
        self._alone = threading.Lock()
        with self._disk_errors():
            self._base = sqlite3.connect(Path(self._folder.name) / "map.sqlite", isolation_level=None, check_same_thread=False)
            self._base.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
            for pragma in ("journal_mode = OFF", "synchronous = OFF", "temp_store = FILE"):
                self._base.execute(f"PRAGMA {pragma}")  # it is not kept, so it need not be safe
            self._base.execute("CREATE TABLE map (key TEXT PRIMARY KEY, value) WITHOUT ROWID")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._base.close()
        self._folder.cleanup()

    def put(self, entries: Iterable[tuple[str, Any]]) -> None:
        """Put entries in; of two with one key, the last stays."""
        with self._alone, self._disk_errors():
            self._base.execute("BEGIN")
            self._base.executemany("INSERT OR REPLACE INTO map VALUES (?, ?)", entries)
            self._base.execute("COMMIT")

    def after(self, prefix: str) -> Iterator[tuple[str, Any]]:
        """Yield the entries whose keys begin with a prefix, in order of key; what is put meanwhile may be among them."""
        query = "SELECT key, value FROM map WHERE key > ? AND key < ? ORDER BY key LIMIT ?"
        last = prefix
        while rows := self._rows(query, last, prefix + "\U0010ffff", _PAGE):
            yield from rows
            last = rows[-1][0]

    def __getitem__(self, key: str) -> Any:
        rows = self._rows("SELECT value FROM map WHERE key = ?", key)
        if not rows:
            raise KeyError(key)
        return rows[0][0]

    def __contains__(self, key: object) -> bool:
        return bool(self._rows("SELECT 1 FROM map WHERE key = ?", key))

    def __iter__(self) -> Iterator[str]:
        return (key for key, _ in self.after(""))

    def __len__(self) -> int:
        return int(self._rows("SELECT COUNT(*) FROM map")[0][0])

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._alone, self._disk_errors():
            return self._base.execute(query, values).fetchall()

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
            raise OSError(errno.ENOSPC if full else errno.EIO, str(error), self._folder.name) from error
