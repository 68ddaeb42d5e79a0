"""Nothing that lies beside a recipe is ever run: not by the command, not by the processes that it starts."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
RECIPE = """
name = "planted"
seed = 3
[video]
width = 64
height = 64
[render]
samples = 8
[[pyramid]]
axes = ["temperature"]
family = ["tabletop"]
layers = [1]
frames = [1]
[train]
steps = 1
[train.backbone]
name = "tiny"
[evaluate]
controls = "-1,1"
prompts = ["a red cube"]
fast = false
"""


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """Return a folder with a recipe, and a Python file for every module that Python and its packages have."""
    (tmp_path / "run.toml").write_text(RECIPE)
    known = {
        *sys.stdlib_module_names,
        *importlib.metadata.packages_distributions(),
        "scenes",
        "generator",
        "trainer",
        "stopdown",
    }
    for name in known | {"sitecustomize", "usercustomize"}:
        if name.isidentifier():
            (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'a').write(__name__ + '\\n')\n")
    return tmp_path


def test_files_beside_a_recipe_are_not_run(planted: Path) -> None:
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"} | {"PYTHONPATH": paths}
    words = ["run", "run.toml", "--until", "version", "--workers", "1"]
    # As the installed script does: only the first process is started with the current folder off its path.
    made = subprocess.run(
        [sys.executable, "-P", str(ROOT / "stopdown.py"), *words],
        cwd=planted,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    executed = planted / "executed"
    assert not executed.exists(), sorted(set(executed.read_text().split()))
    assert made.returncode == 0, made.stderr
