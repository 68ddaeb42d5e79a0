"""Speed against a plain Blender loop: CPU seconds a frame of the whole process tree, both arms in one run on one machine.

Ours is `stopdown build` of the shipped recipes, everything included: start-up, building, rendering, read-back, encoding,
probing, the dataset. The yardstick is `baseline_blender.py` on frames of the same plan. Bars: shutter 10x, aperture 4x,
temperature 15x. Run: python benchmarks/render_speed.py [--scenes 1] [--frames 9] [--json speed.json]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from generator.recipe.load import load_recipe
from generator.recipe.plan import make_plan

ROOT = Path(__file__).resolve().parent.parent
BARS = {"shutter": 10.0, "aperture": 4.0, "temperature": 15.0}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", nargs="+", default=list(BARS), choices=list(BARS))
    parser.add_argument("--scenes", type=int, default=1, help="scenes per layer and frame count (the recipes have 2)")
    parser.add_argument("--frames", type=int, default=9, help="frames of the yardstick")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="override a key of every recipe")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    overrides = [f"pyramid.0.scenes_per_layer={options.scenes}", *options.overrides]
    rows = [measure(name, overrides, options.frames, options.workers) for name in options.recipes]
    _show(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


def measure(name: str, overrides: list[str], frames: int, workers: int) -> dict[str, object]:
    """Run both arms on one recipe."""
    recipe = ROOT / "examples" / f"{name}.toml"
    plan = make_plan(load_recipe(recipe, overrides))
    settings = [part for override in overrides for part in ("--set", override)]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "stopdown.py"), "build", str(recipe), "--out", f"{folder}/{name}"]
        cpu_s, wall_s, _ = _spent([*command, "--workers", str(workers), *settings])
    count = sum(clip.frames for clip in plan.clips)
    plain = [sys.executable, str(ROOT / "benchmarks" / "baseline_blender.py"), str(recipe), "--frames", str(frames)]
    plain_cpu_s, _, words = _spent([*plain, *settings])
    plain_count = int(words.split()[-1])
    ours, yardstick = cpu_s / count, plain_cpu_s / plain_count
    return {
        "recipe": name,
        "clips": len(plan.clips),
        "frames": count,
        "wall_s": wall_s,
        "cpu_s_per_frame": ours,
        "yardstick_frames": plain_count,
        "yardstick_cpu_s_per_frame": yardstick,
        "ratio": yardstick / ours,
        "bar": BARS[name],
    }


def _spent(command: list[str]) -> tuple[float, float, str]:
    """Run a command; return the CPU seconds of its whole tree, its wall seconds, and what it printed."""
    before, start_s = os.times(), time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    after = os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return cpu_s, time.perf_counter() - start_s, done.stdout


def _show(rows: list[dict[str, object]]) -> None:
    table = Table("recipe", "clips", "frames", "CPU s/frame", "yardstick CPU s/frame", "ratio", "bar")
    for row in rows:
        table.add_row(
            str(row["recipe"]),
            str(row["clips"]),
            str(row["frames"]),
            f"{row['cpu_s_per_frame']:.3f}",
            f"{row['yardstick_cpu_s_per_frame']:.2f}",
            f"{row['ratio']:.1f}x",
            f"{row['bar']:.0f}x",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
