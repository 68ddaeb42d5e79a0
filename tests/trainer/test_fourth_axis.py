"""A new axis is one module of `scenes.axes` and one line of `AXES`: nothing else in the product names it.

The packages are copied, the module and the line are added to the copy, and a user's commands are driven there.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from run_support import RECIPE

pytestmark = pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="renders with Blender")

ROOT = Path(__file__).parents[2]
NAME = "letterbox"
MODULE = '''
"""Black bars above and below the picture; the value is the height of one of them, as a share of the picture's."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from scenes.axes.base import Measurement, Reading, UnitLaw


@dataclass(frozen=True)
class Letterbox:
    name: str = "letterbox"
    column: str = "letterbox_share"
    default_law: UnitLaw = UnitLaw(neutral=0.1, ratio=2.0)
    error_unit: str = "stop"
    tolerance: float = 0.15
    plural: str = "Bar heights"
    shown_by: frozenset[str] = frozenset({"tabletop"})
    reads_neutral: bool = False
    caveat: str = "letterbox: bars on black content cannot be seen"
    effect_words: tuple[str, str] = ("thin black bars", "thick black bars")

    def layout_law(self, fps):
        return self.default_law

    def parse(self, text):
        return float(text)

    def format(self, value):
        return f"{value:.3f}"

    def check_law(self, law, fps):
        pass

    def apply_optics(self, optics, value):
        return optics

    def apply_image(self, linear_THW3, value):
        rows_H = np.arange(linear_THW3.shape[1])
        from_edge_H = np.minimum(rows_H, rows_H[::-1])
        open_H = np.clip(from_edge_H + 1 - value * len(rows_H), 0.0, 1.0).astype(np.float32)
        return linear_THW3 * open_H[:, None, None]

    def probe(self, frames_THW3, fps):
        light_H = ((frames_THW3 / 255.0) ** 2.2).mean(axis=(0, 2, 3))
        covered = 0.0
        for row, light in enumerate(light_H[: len(light_H) // 2]):
            if light > 0.002:
                covered = row + float(np.clip(1.0 - light / light_H[row + 1], 0.0, 1.0))
                break
        if covered < 0.5:
            return Reading(value=None, confidence=0.0, note="no bar is seen")
        return Reading(value=covered / len(light_H), confidence=1.0)

    def stops(self, value, reference):
        return math.log2(value / reference)

    def relative(self, frames_THW3, reference_THW3, fps):
        mine, other = self.probe(frames_THW3, fps).value, self.probe(reference_THW3, fps).value
        return None if mine is None or other is None else self.stops(mine, other)

    def measure(self, reading, scene, optics, value):
        error = None if reading.value is None else self.stops(reading.value, value)
        return Measurement(labelled=value, measured=reading.value, error=error, judged=True, confidence=reading.confidence)
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the product, the new axis in it, and the micro recipe over that axis."""
    root = tmp_path_factory.mktemp("fourth")
    for package in ("scenes", "generator", "trainer", "blender_addons"):
        shutil.copytree(ROOT / package, root / "code" / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "stopdown.py", root / "code")
    axes = root / "code" / "scenes" / "axes"
    (axes / f"{NAME}.py").write_text(MODULE)
    listed = (axes / "__init__.py").read_text()
    line = '        "temperature": Temperature(),\n'
    assert listed.count(line) == 1
    listed = listed.replace(line, line + '        "letterbox": Letterbox(),\n')
    (axes / "__init__.py").write_text(
        listed.replace("from scenes.axes.shutter", "from scenes.axes.letterbox import Letterbox\nfrom scenes.axes.shutter")
    )
    (root / "recipe.toml").write_text(RECIPE.replace('"temperature"', f'"{NAME}"'))
    return root


def called(place: Path, *words: str, code: int = 0) -> str:
    """Return what a program of the copied product says."""
    environment = os.environ | {"PYTHONPATH": str(place / "code"), "HOME": str(place), "COLUMNS": "200"}
    made = subprocess.run(
        [sys.executable, "-P", *words],
        cwd=place,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == code, made.stdout[-3000:] + made.stderr[-3000:]
    return made.stdout + made.stderr


def test_nothing_in_the_product_names_it(place: Path) -> None:
    named = [path for path in (place / "code").rglob("*.py") if NAME in path.read_text().lower()]
    assert sorted(path.name for path in named) == ["__init__.py", f"{NAME}.py"]


def test_it_is_planned_built_verified_trained_generated_measured_and_reported(place: Path) -> None:
    said = called(place, "-m", "stopdown", "plan", "recipe.toml")
    assert NAME in said
    said = called(place, "-m", "stopdown", "run", "recipe.toml", "--workers", "1")
    assert f"{NAME}: " in said and "report.html" in said
    run = place / "runs" / "micro" / "001"
    verified = json.loads((run / "verify.json").read_text())
    assert verified["passed"], "its labels are proven by its own probe"
    report = json.loads((run / "evaluation" / "report.json").read_text())
    assert report["axes"] == [NAME]
    assert NAME in (run / "report.html").read_text()
    gallery = called(place, "-m", "stopdown", "gallery", "datasets/micro")
    assert "gallery" in gallery
    assert "letterbox_share" in called(place, "-m", "stopdown", "query", "datasets/micro", "select letterbox_share from clips")
    adapter = str(run / "train" / "adapter")
    said = called(
        place,
        "-m",
        "stopdown",
        "generate",
        "--adapter",
        adapter,
        "--prompt",
        "a cube",
        "--letterbox",
        "0.05..0.2:3",
        "--dry-run",
    )
    assert "0.050" in said and "0.200" in said


def test_it_is_among_all_choices(place: Path) -> None:
    assert NAME in called(place, "-m", "stopdown", "schema")
    assert "--letterbox" in called(place, "-m", "stopdown", "generate", "--help")
    code = "import sys; sys.path.insert(0, 'code/blender_addons'); from stopdown import choices; print(choices.known('axes'))"
    assert NAME in called(place, "-c", code)
