"""One finished dataset for all tests of the exports, plain and with splits; readers stay off the network."""

from __future__ import annotations

import os

import pytest
from squares import SplitSource, build

from generator.export import DatasetSource
from generator.versions.working.working_folder import WorkingFolder

# huggingface_hub reads these once, when it is imported, which the test modules do after this file.
os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> WorkingFolder:
    return build(tmp_path_factory.mktemp("data") / "a dataset, ünïcode")


@pytest.fixture(scope="session")
def source(dataset: WorkingFolder) -> DatasetSource:
    return DatasetSource(dataset, "CC-BY-4.0")


@pytest.fixture(scope="session")
def split_source(source: DatasetSource) -> SplitSource:
    return SplitSource(source)
