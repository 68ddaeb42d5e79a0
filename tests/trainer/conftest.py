"""Every test of the trainer runs on one thread, so that sums keep their order, and needs the extra `train`."""

from __future__ import annotations

import importlib.util

import pytest

MISSING = importlib.util.find_spec("torch") is None
collect_ignore_glob = ["test_*.py"] if MISSING else []


def pytest_report_header() -> str | None:
    """Say in the report's header that these tests are left out, where they are."""
    return "tests/trainer: left out, torch is not installed (pip install 'stopdown[train]')" if MISSING else None


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Keep torch on one thread."""
    import torch

    torch.set_num_threads(1)
