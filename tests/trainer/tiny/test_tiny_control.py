"""The first proof, small enough for every test run: half a minute of fitting on the bundled backbone teaches it a cast."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from run_support import finished

pytestmark = pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="a run builds its dataset with Blender")

RECIPE = Path(__file__).parents[3] / "examples" / "tiny_temperature.toml"
SMALLER = {
    "pyramid.0.scenes_per_layer": "2",
    "train.steps": "100",
    "train.batch_size": "8",
    "train.optimizer.warmup_steps": "10",
    "train.validation.every": "0",
    "evaluate.prompts_count": "3",
    "evaluate.controls": '"-1.5..1.5:7"',
    "evaluate.modes": '["decoupled", "backbone_only"]',
    "evaluate.text_baseline": "false",
    "evaluate.fep": "false",
}


def test_half_a_minute_of_fitting_teaches_colour_temperature(tmp_path: Path) -> None:
    sets = [word for key, value in SMALLER.items() for word in ("--set", f"{key}={value}")]
    finished(tmp_path, tmp_path / "cache", "run", str(RECIPE), "--workers", "1", "--run", "proof", *sets)
    report = json.loads((tmp_path / "runs" / "tiny-temperature" / "proof" / "evaluation" / "report.json").read_text())
    by_arm = {row["arm"]: row for row in report["accuracy"] if row["axis"] == "temperature"}
    assert by_arm["decoupled"]["rho"]["value"] >= 0.9
    assert by_arm["decoupled"]["slope"]["value"] > 0.1
    assert abs(by_arm["backbone_only"]["slope"]["value"]) < 0.01
