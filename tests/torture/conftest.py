"""Torture tests flush thousands of small files: they run in memory where the system has a folder for that."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")

for _name in ("versions", "export", "trainer"):  # the helpers that make small datasets, tasks and adapters
    sys.path.append(str(Path(__file__).parent.parent / _name))


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return an empty folder, in memory if possible."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path_factory.mktemp("torture")
        return
    with tempfile.TemporaryDirectory(prefix="stopdown-test-", dir=MEMORY, ignore_cleanup_errors=True) as folder:
        yield Path(folder)
