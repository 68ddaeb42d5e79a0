"""The Blender extension, in the bpy module: installed from its zip as Blender does, its operators, and nothing left behind."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from extension_support import RECIPE, ROOT, build_zip, in_blender, quiet_environment

OPERATORS = [
    "build",
    "cancel_build",
    "draw_scene",
    "mark_scene",
    "open_clip",
    "open_dataset",
    "open_recipe",
    "preview_sweep",
    "restore_camera",
    "save_recipe",
]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    return path


def test_the_same_sources_give_the_same_zip(sources: Path, zip_file: Path, tmp_path: Path) -> None:
    assert build_zip(sources, tmp_path).read_bytes() == zip_file.read_bytes()
    with zipfile.ZipFile(zip_file) as one:
        manifest = tomllib.loads(one.read("blender_manifest.toml").decode())
        assert manifest["wheels"] == [f"./{name}" for name in one.namelist() if name.startswith("wheels/")]
        assert all(manifest["permissions"].values())
    assert zip_file.name == f"stopdown-{manifest['version']}.zip"


def test_it_installs_as_blender_does_and_leaves_nothing_behind(installed: tuple[Path, dict[str, Any]]) -> None:
    user, seen = installed
    assert seen["installed"] == ["FINISHED"] and seen["lazy"]
    assert seen["wheel"].startswith(str(user)), "the code must come from the extension's own wheel"
    assert seen["on"]["operators"] == OPERATORS and seen["on"]["properties"] == ["Scene", "WindowManager"]
    assert len(seen["on"]["classes"]) >= len(OPERATORS) + 8
    assert seen["off"] == seen["before"] and seen["off"]["operators"] == [] and seen["off"]["classes"] == []
    assert seen["on_again"] == seen["on"] and seen["off_again"] == seen["before"]
    assert "stopdown" in seen["commands_on"] and "stopdown" not in seen["commands_off"]


def test_recipes_open_save_and_are_refused_in_the_words_of_the_command_line(user: Path, recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "recipes"
    folder.mkdir()
    seen = in_blender("recipes", user, recipe, folder)
    assert seen["no_packages"] == seen["no_packages_live"] and "'scenes' is not in this Blender" in seen["no_packages"]
    assert seen["no_packages_code"] == 2
    assert seen["opened"] == seen["saved"] == ["FINISHED"]
    assert seen["fields"] == {
        "dataset_name": "tiny", "seed": 3, "width": 64, "layers": "3, 1", "frames": "5", "scenes_per_layer": 1,
        "fidelity": "flat", "axes": ["shutter"], "families": ["flyby"],
    }  # fmt: skip
    wanted = tomllib.loads(RECIPE)
    wanted["seed"], wanted["render"]["fidelity"] = 12, "flat"
    assert tomllib.loads(seen["text"]) == wanted
    assert "did you mean 'other.toml'" in seen["missing"]
    assert "pyramid[0].layers[1]" in seen["bad_layers"]
    assert "does not show shutter" in seen["bad_family"]
    assert "pyramid 3: the recipe has 1" in seen["bad_pyramid"]
    assert "is not valid TOML" in seen["broken"]
    assert seen["files"] == ["broken.toml", "other.toml"]


def test_a_clip_is_drawn_as_a_real_scene_that_sliders_drive_and_undo_removes(user: Path, recipe: Path) -> None:
    seen = in_blender("drawing", user, recipe)
    assert "did you mean 'flyby-s3-n3-f5-0000-" in seen["no_clip"]
    assert seen["drawn"] == ["FINISHED"] and seen["scene"] == "flyby-s3-n3-f5-0000-2" and seen["kept_scenes"]
    assert seen["keys"] in (3, 7) and seen["material"].startswith("flyer")
    assert seen["blur"] == pytest.approx(seen["exposure"], rel=1e-6)
    assert seen["slid"] == pytest.approx(0.02, rel=1e-6) and seen["f_number"] == pytest.approx(2.0)
    assert seen["cast"].startswith("Stopdown cast") and seen["no_cast"]
    assert "frame interval" in seen["too_long"] and seen["unmoved"] == pytest.approx(0.02, rel=1e-6)
    assert seen["undone"]


def test_a_scene_of_ones_own_gets_all_its_settings_back(user: Path, recipe: Path) -> None:
    seen = in_blender("own_camera", user, recipe)
    assert seen["swept"] == ["FINISHED"] and seen["strip"] == [3 * 32 + 2 * 2, 21] and seen["contrast"] > 0.2
    assert seen["kept"] and seen["live"] and seen["cast"] and seen["moved"] and seen["restored"] and seen["given_back"]
    assert seen["no_quarrel"] == "" and "compositor of its own, 'mine'" in seen["quarrel"] and seen["mine"] == "mine"
    assert "frame interval" in seen["too_long"] and "has no camera" in seen["no_camera"]


def test_every_property_operator_and_icon_that_the_panels_name_exists(user: Path, tmp_path: Path) -> None:
    words = [sys.executable, str(ROOT / "blender_addons" / "draw_panel.py"), str(tmp_path / "panel.svg")]
    environment = quiet_environment() | {"BLENDER_USER_RESOURCES": str(user)}
    made = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    drawn = (tmp_path / "panel.svg").read_text()
    for button in ("Draw Scene", "Preview Sweep", "Mark Scene", "Build", "Open Dataset", "Show Clip", "Live controls", "f/5.6"):
        assert f">{button}<" in drawn


def test_a_failed_preview_restores_the_scene_too(user: Path) -> None:
    assert in_blender("interrupted_sweep", user) == {"kept": True}
