"""Every test of the trainer runs on one thread, so that sums keep their order, and needs the extra `train`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from trainer.data.encoding import EncodedReader

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


@pytest.fixture(scope="session")
def tints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of one axis (temperature), 32 px, clips of 1 and 5 frames; do not change it."""
    from dataset_support import ONE_AXIS, make_dataset

    path = tmp_path_factory.mktemp("data") / "tints"
    make_dataset(path, ONE_AXIS)
    return path


@pytest.fixture(scope="session")
def two_axes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of two axes (shutter, temperature), clips of 1, 5 and 9 frames; do not change it."""
    from dataset_support import TWO_AXES, make_dataset

    path = tmp_path_factory.mktemp("data") / "two"
    make_dataset(path, TWO_AXES)
    return path


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the tiny-random backbone, built once."""
    from trainer.backbones.tiny_random import tiny_random

    return tiny_random(tmp_path_factory.mktemp("backbones"))


@pytest.fixture(scope="session")
def reader(two_axes: Path, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> EncodedReader:
    """Return the encodings of the dataset of two axes by tiny-random, computed once."""
    from task_support import LENGTH

    from trainer.backbones.load import load_backbone
    from trainer.data import open_data
    from trainer.data.cache import TensorCache
    from trainer.data.encoding import EncodedReader, encode_all

    cache, pipe = TensorCache(tmp_path_factory.mktemp("encodings")), load_backbone(str(tiny_folder))
    return EncodedReader(encode_all(pipe, open_data(two_axes), cache, text_length=LENGTH), cache)
