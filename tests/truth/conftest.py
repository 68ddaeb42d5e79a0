"""A dataset with ground truth, rendered once for all tests of truth that change nothing in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from truth.truth_support import made


@pytest.fixture(scope="session")
def truth_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a committed dataset: two scenes of two clips each, with every pass."""
    path = tmp_path_factory.mktemp("truth") / "d"
    assert made(path).complete
    return path
