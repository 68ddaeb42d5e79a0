"""Fixtures that several test modules share: a small dataset of the three families, built once per session by real renders."""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from generator.building.local import build
from generator.console.progress import JsonProgress
from generator.recipe.load import parse_recipe
from generator.recipe.plan import make_plan
from generator.versions.working.working_folder import WorkingFolder

# A slow or busy machine is no fault of the code: nothing here tests time. Unchanged code sees the same draws every time;
# `make explore` draws anew, and what it finds becomes an @example.
hypothesis.settings.register_profile("fixed", deadline=None, derandomize=True, database=None)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=1000)
hypothesis.settings.load_profile("fixed")


# A shell starts what it runs in the background with Ctrl-C ignored, and every child inherits that; tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection() -> None:
    """Load thousands of modules without looking for garbage in them."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Refuse test modules that load Blender while they are imported: render processes cannot be spawned after that.

    What is loaded stays, so that the product's own collections of garbage look at what tests made and no more.
    """
    gc.enable()
    gc.freeze()
    assert "bpy" not in sys.modules, "a test module imported bpy at its top; look for it with importlib.util.find_spec"


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """Take back what `stopdown` says to its children, where a test runs it in this process."""
    names = ("PYTHONSAFEPATH", "PYTHONPATH", "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "OMP_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


DEMO_RECIPE = """
name = "demo-tiny"
description = "Three families at 64 pixels, <b>for tests</b> & nothing else."
seed = 5
[video]
width = 64
height = 64
[render]
samples = 16
[axes.shutter]
neutral = 0.03125
ratio = 2.0
[verify.median_error]
shutter = 0.3
aperture = 0.3
[[pyramid]]
axes = ["shutter"]
family = ["flyby"]
layers = [3, 1]
scenes_per_layer = 1
frames = [9]
[[pyramid]]
axes = ["aperture"]
family = ["depth_row"]
layers = [3]
scenes_per_layer = 1
frames = [1, 5]
[[pyramid]]
axes = ["temperature"]
family = ["tabletop"]
layers = [5]
scenes_per_layer = 1
frames = [5]
"""


@pytest.fixture(scope="session")
def demo_dataset(tmp_path_factory: pytest.TempPathFactory) -> WorkingFolder:
    """Return a finished 64-pixel dataset of 15 clips, three families, some stills; do not change it."""
    path = tmp_path_factory.mktemp("demo") / "demo-tiny"
    plan = make_plan(parse_recipe(DEMO_RECIPE, source="demo-tiny.toml"))
    report = build(plan, path, workers=2, threads=1, progress=JsonProgress(io.StringIO()))
    assert report.complete, report.failed
    return WorkingFolder.open(path)


@pytest.fixture
def copied_dataset(demo_dataset: WorkingFolder, tmp_path: Path) -> Path:
    """Return the folder of a copy of the demo dataset, with its hard links, for a test to damage."""
    target = tmp_path / "copy"
    for source in sorted(demo_dataset.path.rglob("*")):
        place = target / source.relative_to(demo_dataset.path)
        if source.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        elif source.parent.name != "clips" or source.suffix != ".mp4":
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(source.read_bytes())
    copy = WorkingFolder.open(target)
    for row in copy.labels.to_pylist():
        copy.store.link(row["sha256_bytes"], copy.clip_path(row["clip_id"]))
    return target
