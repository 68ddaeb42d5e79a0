"""A new axis is one module of `scenes.axes` and one line of `AXES`: nothing else in the product names it.

The packages are copied, the module and the line are added to the copy, and a user's commands are driven there.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from run_support import RECIPE

pytestmark = pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="renders with Blender")

ROOT = Path(__file__).parents[2]
NAME = "letterbox"
MODULE = ROOT / "examples" / "letterbox_axis.py"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the product, the new axis in it, and the micro recipe over that axis."""
    root = tmp_path_factory.mktemp("fourth")
    for package in ("scenes", "generator", "trainer", "blender_addons"):
        shutil.copytree(ROOT / package, root / "code" / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "stopdown.py", root / "code")
    axes = root / "code" / "scenes" / "axes"
    shutil.copy(MODULE, axes / f"{NAME}.py")
    listed = (axes / "__init__.py").read_text()
    line = '        "temperature": Temperature(),\n'
    assert listed.count(line) == 1
    listed = listed.replace(line, line + '        "letterbox": Letterbox(),\n')
    (axes / "__init__.py").write_text(
        listed.replace(
            "from scenes.axes.shutter.axis", "from scenes.axes.letterbox import Letterbox\nfrom scenes.axes.shutter.axis"
        )
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
    assert verified["passed"], "its labels are verified by its own probe"
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


def test_the_page_to_try_it_by_hand_has_its_slider_and_its_box(place: Path) -> None:
    """`stopdown play` serves the adapter of the run above; the page's description names all of its components."""
    adapter = str(place / "runs" / "micro" / "001" / "train" / "adapter")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"PYTHONPATH": str(place / "code"), "HOME": str(place)}
    words = [sys.executable, "-P", "-m", "stopdown", "play", adapter, "--port", port, "--device", "cpu"]
    app = subprocess.Popen(words, cwd=place, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert app.stdout is not None
        address = app.stdout.readline().split()[0].rstrip("/,")  # once it is served
        with urllib.request.urlopen(f"{address}/config") as answer:
            parts = [(one["type"], one["props"]) for one in json.load(answer)["components"]]
    finally:
        app.terminate()
        app.wait()
    assert f"{NAME} (c)" in {props.get("label") for kind, props in parts if kind == "slider"}
    assert NAME in {props.get("label") for kind, props in parts if kind == "textbox"}
    assert [NAME, NAME] in next(props["choices"] for kind, props in parts if props.get("label") == "Sweep")


def test_the_examples_in_python_run_on_what_was_made(place: Path) -> None:
    """The dataset in torch's DataLoader, the adapter in diffusers; both are of the run above."""
    adapter = str(place / "runs" / "micro" / "001" / "train" / "adapter")
    said = called(place, str(ROOT / "examples" / "read_in_torch.py"), "datasets/micro")
    assert "5, 64, 64, 3)" in said and "letterbox_control" in said
    small = ["--width", "32", "--height", "32", "--frames", "5", "--steps", "1"]
    said = called(place, str(ROOT / "examples" / "use_in_diffusers.py"), "tiny-random", adapter, "a red cube", *small)
    assert "weak: letterbox 0.050" in said
    assert {path.name for path in (place / "videos").iterdir()} == {"weak.mp4", "strong.mp4", "backbone.mp4"}
