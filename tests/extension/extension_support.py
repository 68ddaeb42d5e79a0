"""The extension's zip, built and installed once for the tests, and scenarios run inside Blender (`extension_scenarios.py`)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = Path(__file__).with_name("extension_scenarios.py")

RECIPE = """
name = "tiny"
seed = 3
[video]
width = 64
height = 64
[render]
samples = 16
[axes.shutter]
neutral = 0.03125
ratio = 2.0
[[pyramid]]
axes = ["shutter"]
family = ["flyby"]
layers = [3, 1]
scenes_per_layer = 1
frames = [5]
"""


def copied_sources(folder: Path) -> Path:
    """Return a copy of what the extension is made of: two builds of it see the same files, whoever edits meanwhile."""
    for name in ("scenes", "generator", "trainer", "blender_addons"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    for name in ("stopdown.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, folder / name)
    return folder


def build_zip(sources: Path, out: Path) -> Path:
    """Build the extension as `make extension` does, with Stopdown's own wheel alone, and return its zip."""
    words = [sys.executable, str(sources / "blender_addons" / "build_extension.py"), "--out", str(out), "--platform", "any"]
    made = subprocess.run(words, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    return Path(made.stdout.strip().splitlines()[-1])


def in_blender(scenario: str, user: Path, *arguments: str | Path) -> dict[str, Any]:
    """Run a scenario in a new process with its own copy of a Blender user folder, and return what it saw."""
    out = user.parent / f"{scenario}.json"
    words = [sys.executable, str(SCENARIOS), scenario, str(user), str(out), *map(str, arguments)]
    made = subprocess.run(words, cwd=user.parent, env=quiet_environment(), capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-4000:]
    seen: dict[str, Any] = json.loads(out.read_text())
    return seen


def quiet_environment() -> dict[str, str]:
    """Return this environment with one thread for numeric libraries and without a Blender named in it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STOPDOWN_")}
    return kept | {"OMP_NUM_THREADS": "1"}


def fresh_user(installed: Path, folder: Path) -> Path:
    """Return a copy of a user folder that has the extension installed."""
    return Path(shutil.copytree(installed, folder / "user"))


def stopdown(*words: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stopdown", *words]
    environment = quiet_environment() | {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
