"""The command line as a person meets it: help, plans, and every bad input as one line, exit code 2 and nothing written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from many_commands import Answer, run_commands

ROOT = Path(__file__).parents[2]
RECIPE = """
name = "tiny"
seed = 3
[video]
width = 64
height = 64
[[pyramid]]
axes = ["shutter"]
family = "flyby"
layers = [3, 1]
scenes_per_layer = 1
frames = [5]
"""


def stopdown(*words: str | Path, cwd: Path) -> Answer:
    (answer,) = run_commands([{"args": list(map(str, words)), "cwd": str(cwd)}])
    return answer


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    return path


def refused(*words: str | Path, cwd: Path) -> str:
    before = {path: path.stat().st_mtime_ns for path in cwd.rglob("*")}
    result = stopdown(*words, cwd=cwd)
    assert result.code == 2, result.err + result.out
    assert result.err.count("\n") == 1 and result.err.startswith("stopdown: error: "), result.err
    assert {path: path.stat().st_mtime_ns for path in cwd.rglob("*")} == before
    return result.err


def test_every_help_shows_its_square_brackets() -> None:
    """Rich takes [train] in a help text for the name of a style and leaves it out."""
    code = """
import contextlib, importlib, io, os, re, sys
os.environ["COLUMNS"] = "500"
import typer, stopdown
def told(command):
    for one in (command, *command.params):
        yield getattr(one, "help", None) or ""
def commands(command, words):
    yield command, words
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, [*words, name])
seen = 0
for name, (module, _) in stopdown.COMMANDS.items():
    found = importlib.import_module(module)
    group = getattr(found, "app", None)
    if group is None:
        group = typer.Typer()
        group.command()(found.command)
    for command, words in commands(typer.main.get_command(group), [name]):
        wanted = {word for text in told(command) for word in re.findall(r"\\[[^\\]]+\\]", text)}
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
            stopdown.app([*words, "--help"])
        missing = [word for word in wanted if word not in shown.getvalue()]
        assert not missing, (words, missing)
        seen += len(wanted)
assert seen > 4, seen
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stderr


def test_help_lists_every_command_without_importing_any(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['stopdown', '--help']; import stopdown\n"
        "try:\n    stopdown.main()\nexcept SystemExit: pass\n"
        "print('heavy', sorted(m for m in sys.modules if m in ('generator.recipe.plan', 'pyarrow', 'av', 'bpy', 'torch')))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in ("plan", "build", "verify", "gallery", "scene", "schema"):
        assert name in result.stdout
    assert "heavy []" in result.stdout


@pytest.mark.parametrize("name", ["plan", "build", "verify", "gallery", "scene", "schema"])
def test_every_command_has_help(name: str, tmp_path: Path) -> None:
    result = stopdown(name, "--help", cwd=tmp_path)
    assert result.code == 0 and "Usage" in result.out


def test_plan_shows_layers_ranges_values_and_cost_and_renders_nothing(recipe: Path, tmp_path: Path) -> None:
    result = stopdown("plan", recipe, "--clips", cwd=tmp_path)
    assert result.code == 0, result.err
    for words in ("4 clips of 2 scenes", "1/400", "1/16", "N=3", "expected:", "flyby-s3-n3-f5-0000-2"):
        assert words in result.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.toml"]


def test_plan_json_is_the_plan(recipe: Path, tmp_path: Path) -> None:
    plan = json.loads(stopdown("plan", recipe, "--json", "--set", "seed=4", cwd=tmp_path).out)
    assert plan["seed"] == 4 and len(plan["clips"]) == 4


def test_schema_is_json_schema(tmp_path: Path) -> None:
    assert json.loads(stopdown("schema", cwd=tmp_path).out)["$schema"].startswith("https://json-schema.org")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plan", "none.toml"], "no recipe at none.toml"),
        (["build", "none.toml", "--out", "d"], "no recipe at none.toml"),
        (["build", "tiny.toml", "--out", "d", "--set", "pyramid.0.frames=[4]"], "4n+1"),
        (["build", "tiny.toml", "--out", "d", "--set", "sede=1"], "did you mean 'seed'"),
        (["build", "tiny.toml", "--out", "tiny.toml"], "is a file"),
        (["build", "tiny.toml", "--out", "d", "--workers", "0"], "at least one"),
        (["build", "tiny.toml", "--out", "d", "--set", "axes.shutter.ratio=9"], "frame interval"),
        (["build", "tiny.toml", "--out", "full"], "not empty"),
        (["plan", "tiny.toml", "--set", "video.width=180", "--set", "train.steps=1"], "size 180x64 does not fit this backbone"),
        (["verify", "nowhere"], "not a Stopdown dataset"),
        (["verify", "full"], "not a Stopdown dataset"),
        (["gallery", "nowhere"], "not a Stopdown dataset"),
        (["scene", "tiny.toml", "--clip", "flyby-s3-n3-f5-0000-2"], "nothing to write"),
        (["scene", "tiny.toml", "--clip", "flyby-s3-n3-f5-0000-9", "--blend", "a.blend"], "did you mean"),
        (["scene", "tiny.toml", "--clip", "flyby-s3-n3-f5-0000-2", "--blend", "a.obj"], "does not end in .blend"),
        (["scene", "tiny.toml", "--clip", "flyby-s3-n3-f5-0000-2", "--blend", "a.blend", "--at", "iso=5"], "axes: shutter"),
        (["scene", "tiny.toml", "--clip", "flyby-s3-n3-f5-0000-2", "--blend", "a.blend", "--at", "shutter=x"], "exposure 'x'"),
        (
            ["scene", "tiny.toml", "--clip", "flyby-s3-n3-f5-0000-2", "--blend", "a.blend", "--at", "shutter=cx"],
            "not a control",
        ),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(words: list[str], said: str, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "holiday.jpg").write_bytes(b"mine")
    assert said in refused(*words, cwd=tmp_path)


def test_a_family_that_cannot_meet_its_rules_fails_loudly(recipe: Path, tmp_path: Path) -> None:
    """A picture of 16 px width has no room for a flight at a speed that shows the shutter."""
    narrow = ("--set", "video.width=16", "--set", "video.height=256", "--set", "pyramid.0.frames=[13]")
    words = refused("plan", recipe, *narrow, cwd=tmp_path)
    assert "met its rules in none of" in words and "flyby" in words


def test_unknown_commands_and_options_are_usage_errors(tmp_path: Path) -> None:
    for words in (["biuld"], ["plan"], ["plan", "a.toml", "--fast"]):
        result = stopdown(*words, cwd=tmp_path)
        assert result.code == 2 and "Traceback" not in result.err
