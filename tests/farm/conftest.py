"""Farm tests flush thousands of small files too: they run in memory where the system has a folder for that."""

from __future__ import annotations

from versions.conftest import tmp_path  # noqa: F401
