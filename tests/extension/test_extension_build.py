"""The extension builds: its command line and its Build button make what `stopdown build` makes, of a custom .blend too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from extension_support import RECIPE, in_blender, quiet_environment, stopdown
from PIL import Image

from generator.building.local import build
from generator.console.progress import make_progress
from generator.recipe.blend_file import annotation_path, read_annotation
from generator.recipe.load import load_recipe
from generator.recipe.plan import make_plan
from generator.versions.working.working_folder import WorkingFolder
from scenes.errors import InputError, StopdownError

STAND_IN = """#!/bin/sh
# Takes the words that a render process is started with, as the Blender program would, and runs their code where bpy is.
echo "$@" >> "{log}"
while [ $# -gt 0 ]; do
  if [ "$1" = --python-expr ]; then exec "{python}" -c "import bpy; $2"; fi
  shift
done
exit 3
"""


def clips_of(dataset: Path) -> tuple[bytes, list[dict[str, Any]]]:
    """Return a dataset's plan, and its labels with the hashes of all frames."""
    return (dataset / ".stopdown" / "plan.json").read_bytes(), pq.read_table(dataset / "labels.parquet").to_pylist()


def test_the_registered_command_does_what_stopdown_does(user: Path, built: Path, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    seen = in_blender("command_line", user, built / "tiny.toml", out)
    assert seen == {"plan": 0, "build": 0, "verify": seen["verify"], "missing": 2}
    assert clips_of(out) == clips_of(built / "dataset")
    assert (tmp_path / "dataset.plan.out").read_bytes().rstrip() == (out / ".stopdown" / "plan.json").read_bytes()
    assert seen["verify"] == stopdown("verify", "dataset", "--workers", "1", cwd=built).returncode
    same = stopdown("plan", "none.toml", cwd=tmp_path)
    assert (tmp_path / "dataset.missing.err").read_text() == same.stderr and same.returncode == 2


def test_the_build_button_cancels_resumes_and_its_dataset_opens(user: Path, tmp_path: Path) -> None:
    out, recipe = tmp_path / "dataset", tmp_path / "tiny.toml"
    recipe.write_text(RECIPE.replace("layers = [3, 1]", "layers = [7, 5, 3, 1]"))  # more scenes than render processes
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    seen = in_blender("building", user, recipe, out, tmp_path / "full")
    assert "save the recipe first" in seen["no_recipe"] and "choose one" in seen["no_folder"]
    assert seen["one_at_a_time"] and seen["cancelled"] == ["CANCELLED"] and seen["cancelled_code"] == 130
    assert [kind for kind, _ in seen["cancelled_reports"]] == ["WARNING"] and "are kept" in seen["cancelled_reports"][0][1]
    assert seen["built"] == ["FINISHED"] and seen["share"] == 1.0 and "version" in seen["words"]
    rendered, reused = (int(word) for word in seen["words"].replace(",", "").split() if word.isdigit())
    assert rendered + reused == 16 and reused >= 1 and rendered >= 1
    assert stopdown("build", str(recipe), "--out", "uncancelled", cwd=tmp_path).returncode == 0
    assert clips_of(out)[1] == clips_of(tmp_path / "uncancelled")[1]
    assert "thesis.txt" in seen["bad_folder"] and "not a Stopdown dataset" in seen["bad_dataset"]
    assert seen["opened"] == seen["shown"] == seen["at_version"] == ["FINISHED"]
    plan = make_plan(load_recipe(recipe))
    assert [row[0] for row in seen["rows"]] == sorted(plan.clip_by_id) and seen["rows"] == seen["version_rows"]
    assert all(row[1].startswith("1/") and "(c " in row[1] for row in seen["rows"])
    assert seen["image"] == ["MOVIE", 64, 64] and "v99" in seen["bad_ref"]
    assert seen["wheel_kept"], "a render process must not touch the person's extensions"


def test_a_blender_program_renders_where_the_environment_names_one(built: Path, tmp_path: Path) -> None:
    program, log = tmp_path / "blender with a space", tmp_path / "log"
    program.write_text(STAND_IN.format(python=sys.executable, log=log))
    program.chmod(0o700)
    named = {"STOPDOWN_BLENDER": str(program), "STOPDOWN_BLENDER_VERSION": "5.0.1"}
    made = stopdown("build", str(built / "tiny.toml"), "--out", "dataset", "--workers", "2", cwd=tmp_path, **named)
    assert made.returncode == 0, made.stderr
    assert clips_of(tmp_path / "dataset")[1] == clips_of(built / "dataset")[1]
    started = log.read_text().splitlines()
    assert len(started) == 2 and all(line.startswith("--background --factory-startup --disable-autoexec") for line in started)
    old = stopdown(
        "build", str(built / "tiny.toml"), "--out", "b", cwd=tmp_path, **named | {"STOPDOWN_BLENDER_VERSION": "4.2.0"}
    )
    assert old.returncode == 2 and "4.2.0" in old.stderr


def test_a_saved_scene_carries_its_colour_temperature(user: Path, built: Path, tmp_path: Path) -> None:
    words = ["scene", str(built / "tiny.toml"), "--clip", "flyby-s3-n1-f5-0000-0", "--at", "temperature=3200K"]
    made = stopdown(*words, "--blend", "a.blend", "--stills", "stills", cwd=tmp_path)
    assert made.returncode == 0 and "is not in the .blend" not in made.stdout, made.stderr
    assert in_blender("as_an_artist_would", user, tmp_path / "a.blend", tmp_path / "seen.png")["cast"].startswith("Stopdown")
    ours, theirs = (
        np.array(Image.open(tmp_path / name).convert("RGB")).astype(int) for name in ("stills/0002.png", "seen.png")
    )
    assert ours[..., 0].mean() > ours[..., 2].mean() + 20, "3200 K is warm"
    assert np.abs(ours - theirs).mean() < 1.0 and np.median(np.abs(ours - theirs)) <= 1


def test_a_scene_of_ones_own_is_marked_and_built_and_its_scripts_never_run(own: tuple[Path, dict[str, Any]]) -> None:
    folder, seen = own
    assert "save the .blend first" in seen["unsaved"] and "caption is empty" in seen["no_caption"]
    assert seen["marked"] == seen["saved"] == seen["built"] == ["FINISHED"], seen
    assert "a custom .blend" in seen["cannot_draw"]
    assert not (folder / "from_text").exists() and not (folder / "from_driver").exists()
    dataset = WorkingFolder.open(folder / "dataset")
    rows = dataset.labels.to_pylist()
    assert len(rows) == 3 and {row["caption"] for row in rows} == {"A red ball flies past a grey card."}
    for row in rows:
        frames_THW3 = dataset.frames(row["clip_id"]).astype(int)
        assert abs(frames_THW3[1:] - frames_THW3[:-1]).max() > 60, "the ball must move"
        assert row["temperature_judged"] and abs(row["temperature_error"]) < 6.0
    judged = [row for row in rows if row["shutter_judged"]]
    unread = {row["clip_id"]: row["shutter_note"] for row in judged if row["shutter_error"] is None}
    assert judged and not unread, unread
    assert all(abs(row["shutter_error"]) < 0.25 for row in judged)


def test_the_scripts_would_have_run_if_they_were_let(own: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    code = f"import bpy; bpy.ops.wm.open_mainfile(filepath={str(own[0] / 'shot.blend')!r}, use_scripts=True)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=quiet_environment(), capture_output=True, check=True)
    written = [own[0] / name for name in ("from_text", "from_driver")]
    assert [path.exists() for path in written] == [True, True]
    for path in written:
        path.unlink()


def test_the_dataset_keeps_its_own_copy_and_the_plan_is_pure(own: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder = own[0]
    plan = make_plan(load_recipe(folder / "own.toml"))
    assert plan.to_json().encode() == (folder / "dataset" / ".stopdown" / "plan.json").read_bytes()
    assert plan.recipe.scene is not None and plan.recipe.scene.file == "shot.blend"
    assert str(folder) not in plan.to_json()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("own.toml", "shot.blend", "shot.marks.json"):
        (elsewhere / name).write_bytes((folder / name).read_bytes())
    other = make_plan(load_recipe(elsewhere / "own.toml"))
    assert other.to_json() == plan.to_json()
    progress = make_progress(sys.stderr)
    with pytest.raises(InputError, match="where the recipe lies"):
        build(other, tmp_path / "new", workers=1, threads=1, progress=progress)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"video.fps": "8"}, "write video.fps = 16"),
        ({"pyramid.0.frames": "[13]"}, "frames 1 to 12"),
        ({"render.fidelity": "flat"}, "write render.fidelity = 'pbr'"),
        ({"pyramid.0.family": "tabletop", "pyramid.0.axes": "temperature"}, "no pyramid uses"),
        ({"scene.file": "nowhere.blend"}, "cannot read"),
        ({"scene.file": "own.toml"}, "does not end in .blend"),
        ({"scene.family": "flyby"}, "scene.family"),
    ],
)
def test_a_recipe_that_the_file_cannot_serve_is_refused(
    own: tuple[Path, dict[str, Any]], change: dict[str, str], said: str
) -> None:
    with pytest.raises(StopdownError) as refused:
        make_plan(load_recipe(own[0] / "own.toml", [f"{key}={value}" for key, value in change.items()]))
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_marks_that_do_not_fit_are_refused(own: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    file = tmp_path / "shot.blend"
    file.write_bytes((own[0] / "shot.blend").read_bytes())
    made = stopdown("mark", str(file), "--caption", "A ball", "--subject", "bal", cwd=tmp_path)
    assert made.returncode == 2 and "did you mean 'ball'" in made.stderr and not annotation_path(file).exists()


def test_a_file_that_changed_since_it_was_marked_is_refused(own: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    for name in ("shot.blend", "shot.marks.json"):
        (tmp_path / name).write_bytes((own[0] / name).read_bytes())
    annotation, _ = read_annotation(tmp_path / "shot.blend")
    assert (
        annotation.subject is not None
        and annotation.unproven == ""
        and (annotation.first_frame, annotation.last_frame) == (1, 12)
    )
    with open(tmp_path / "shot.blend", "ab") as file:
        file.write(b"more")
    with pytest.raises(InputError, match="has changed since it was marked"):
        read_annotation(tmp_path / "shot.blend")
    os.unlink(annotation_path(tmp_path / "shot.blend"))
    with pytest.raises(InputError, match="is not marked"):
        read_annotation(tmp_path / "shot.blend")
