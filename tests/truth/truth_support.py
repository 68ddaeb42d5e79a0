"""A small recipe with ground truth, and how it is built."""

from __future__ import annotations

import io
from pathlib import Path

from generator.building.local import BuildReport, build
from generator.console.progress import PlainProgress
from generator.recipe.load import parse_recipe
from generator.recipe.plan import Plan, make_plan

RECIPE = """
name = "seen"
seed = 4
[video]
width = 64
height = 64
[render]
samples = 16
[[pyramid]]
axes = ["shutter"]
family = "flyby"
layers = [2]
scenes_per_layer = 1
frames = [5]
[[pyramid]]
axes = ["temperature"]
family = "tabletop"
layers = [2]
scenes_per_layer = 1
frames = [5]
"""
TRUTH = "[truth]\n"


def plan_of(*overrides: str, truth: str = TRUTH) -> Plan:
    """Return the recipe's plan; `truth` is its section, "" for none."""
    return make_plan(parse_recipe(RECIPE + truth, source="truth.toml", overrides=overrides))


def made(path: Path, *overrides: str, truth: str = TRUTH, message: str | None = "built") -> BuildReport:
    """Build it into a folder with one process."""
    progress = PlainProgress(io.StringIO())
    plan = plan_of(*overrides, truth=truth)
    return build(plan, path, workers=1, threads=1, progress=progress, message=message)
