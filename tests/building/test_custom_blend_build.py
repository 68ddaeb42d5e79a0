"""A custom .blend, planned, built and verified: what has no proof is known before, accepted or not; the rest is read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blender_child import run_in_blender
from custom_blend_support import make_and_mark

from generator.building.local import build
from generator.building.plan_check import concerns
from generator.commands.mark import command as mark
from generator.console.progress import make_progress
from generator.recipe.blend_file import write_annotation
from generator.recipe.estimate import estimate
from generator.recipe.label_proof import short_blurs, unproven
from generator.recipe.load import load_recipe
from generator.recipe.plan import make_plan
from generator.recipe.schema import Recipe
from generator.verify.findings import VerifyReport
from generator.verify.verify_dataset import verify
from generator.versions.working.working_folder import WorkingFolder
from scenes.axes import AXES
from scenes.errors import InputError

RECIPE = """
name = "own"
[video]
width = 64
height = 64
[render]
fidelity = "pbr"
samples = 8
[axes.aperture]
neutral = 0.4
ratio = 4
[scene]
family = "blend"
file = "{file}.blend"
[[pyramid]]
axes = {axes}
family = ["blend"]
layers = [3]
scenes_per_layer = 1
frames = [5]
"""


def keyed_and_blue(scene: Any) -> None:
    """Key what recipes set, and paint the wall as a neutral looks under 12,000 K."""
    import bpy

    from scenes.white import neutral_rgb

    tree = bpy.data.objects["Wall"].data.materials[0].node_tree
    glow, place, parts = tree.nodes["Emission"], tree.nodes.new("ShaderNodeTexCoord"), tree.nodes.new("ShaderNodeSeparateXYZ")
    glow.inputs[0].default_value = (*(0.45 * neutral_rgb(12000.0)).tolist(), 1.0)
    tree.links.new(place.outputs["Generated"], parts.inputs[0])
    tree.links.new(parts.outputs["X"], glow.inputs[1])  # dark to bright: many luminances of one chromaticity
    scene.render.motion_blur_shutter = 0.5
    scene.render.keyframe_insert("motion_blur_shutter", frame=1)
    scene.camera.data.dof.aperture_fstop = 2.8
    scene.camera.data.dof.keyframe_insert("aperture_fstop", frame=1)
    scene.camera.data.dof.focus_distance = 3.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("own")
    told = run_in_blender(make_and_mark, str(made), {"keyed_and_blue": keyed_and_blue}, {})
    assert not isinstance(told["keyed_and_blue"], str), told
    return made


def recipe(folder: Path, axes: str, *overrides: str) -> Recipe:
    path = folder / "own.toml"
    text = RECIPE.format(file="keyed_and_blue", axes=axes)
    path.write_text(text if "aperture" in axes else text.replace("[axes.aperture]\nneutral = 0.4\nratio = 4\n", ""))
    return load_recipe(path, overrides)


ACCEPT = 'verify.accept_unproven=["aperture"]'


@pytest.fixture(scope="module")
def built(folder: Path) -> tuple[WorkingFolder, VerifyReport]:
    plan = make_plan(recipe(folder, '["shutter", "temperature", "aperture"]', ACCEPT))
    report = build(plan, folder / "dataset", workers=1, threads=1, progress=make_progress(io.StringIO()), recipe_folder=folder)
    assert report.complete, report.failed
    dataset = WorkingFolder.open(folder / "dataset")
    return dataset, verify(dataset, workers=1)


def test_the_labels_win_over_the_files_keys(built: tuple[WorkingFolder, VerifyReport]) -> None:
    dataset, _ = built
    clips = sorted(dataset.plan.clips, key=lambda clip: clip.values["aperture"])
    sharp = [_sharpness(dataset.frames(clip.clip_id)) for clip in clips]
    assert sharp == sorted(sharp) and sharp[-1] > 1.2 * sharp[0], "a smaller opening is sharper, whatever was keyed"


def _sharpness(frames_THW3: Any) -> float:
    card = frames_THW3[:, 40:, :, 1].astype(float)
    return float(np.square(card[:, :, 1:] - card[:, :, :-1]).mean())


def test_temperature_is_read_on_the_marked_patch_and_not_on_a_wall_that_imitates_a_neutral(
    built: tuple[WorkingFolder, VerifyReport],
) -> None:
    dataset, report = built
    axis, wrong = AXES["temperature"], 0
    for entry in report.measurements:
        if entry.axis == "temperature":
            assert entry.judged and entry.error is not None and abs(entry.error) < 6.0
            whole = axis.probe(dataset.frames(entry.clip_id), 16.0)
            wrong += whole.value is None or abs(axis.distance(whole.value, entry.labelled)) > 20
    assert wrong >= 2, "the case must be one in which the whole picture misleads"


def test_an_accepted_axis_passes_without_proof_and_card_and_report_say_so(built: tuple[WorkingFolder, VerifyReport]) -> None:
    dataset, report = built
    (aperture,) = (axis for axis in report.axes if axis.axis == "aperture")
    assert aperture.passed and aperture.judged == 0 and aperture.unproven.endswith("the recipe accepts it")
    card = (dataset.path / "README.md").read_text()
    assert "3 of 3 labels of aperture have no proof: an annotation names no small round lights" in card
    assert "The recipe accepts that." in card
    assert not report.problems


def test_the_plan_names_what_cannot_be_proven(folder: Path) -> None:
    (one,) = unproven(make_plan(recipe(folder, '["aperture", "temperature"]')))
    assert one.axis == "aperture" and one.hopeless and 'verify.accept_unproven = ["aperture"]' in one.line
    (one,) = unproven(make_plan(recipe(folder, '["aperture", "temperature"]', ACCEPT)))
    assert not one.hopeless and "\n" not in one.line


def test_the_plan_says_where_blurs_are_too_short_for_single_readings(folder: Path) -> None:
    def said(*overrides: str) -> str:
        plan = make_plan(recipe(folder, '["shutter"]', "video.width=128", "video.height=128", *overrides))
        words = short_blurs(plan)
        assert not words or words in list(concerns(plan))
        return words

    close = "axes.shutter.ratio=1.1"
    assert "are 2.7 px long by the median" in said("axes.shutter.neutral=1/31", close) and "1.2 times as large" in said(
        "axes.shutter.neutral=1/31", close
    )
    assert not said("axes.shutter.neutral=1/20", close), "blurs of 4 px are read well"
    assert not said("axes.shutter.neutral=1/100", close), "blurs below 2 px are not judged, which another line says"


def test_what_is_accepted_changes_no_clip_and_other_plans_keep_their_bytes(folder: Path) -> None:
    plain = make_plan(recipe(folder, '["aperture", "temperature"]'))
    accepting = make_plan(recipe(folder, '["aperture", "temperature"]', ACCEPT))
    assert [key for _, key in plain.media_keys()] == [key for _, key in accepting.media_keys()]
    assert "accept_unproven" not in plain.to_json() and "cost" not in plain.to_json()


@pytest.mark.parametrize(
    ("override", "said"),
    [('verify.accept_unproven=["shutter"]', "no pyramid controls"), ('verify.accept_unproven=["apeture"]', "did you mean")],
)
def test_only_known_and_used_axes_can_be_accepted(folder: Path, override: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        recipe(folder, '["aperture"]', override)


def test_the_estimate_follows_what_the_file_took(folder: Path) -> None:
    one = recipe(folder, '["temperature"]')
    assert one.scene is not None and one.scene.cost is not None
    slow = one.scene.cost.model_copy(update={"frame_s": one.scene.cost.frame_s + 10.0})
    slower = one.model_copy(update={"scene": one.scene.model_copy(update={"cost": slow})})
    assert estimate(slower).cpu_s - estimate(one).cpu_s == pytest.approx(5 * 10.0)


@pytest.mark.parametrize(
    ("content", "caption", "said"),
    [
        (b"", "A ball", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "A ball", "git lfs pull"),
        (b"PK\x03\x04 junk", "A ball", "is not a Blender file"),
        (b"BLENDER", "A ball\nand a card", "has 2 lines"),
        (b"BLENDER", " ", "caption is empty"),
    ],
)
def test_what_is_no_blend_file_or_caption_is_refused_in_one_line(
    tmp_path: Path, content: bytes, caption: str, said: str
) -> None:
    file = tmp_path / "shot.blend"
    file.write_bytes(content)
    with pytest.raises(InputError, match=said) as refused:
        mark(file, caption)
    assert "\n" not in str(refused.value) and list(tmp_path.iterdir()) == [file]


def test_marks_that_cannot_be_written_are_one_line(folder: Path, tmp_path: Path) -> None:
    scene = recipe(folder, '["temperature"]').scene
    assert scene is not None and scene.marks is not None and scene.cost is not None
    (tmp_path / "shot.marks.json").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        write_annotation(tmp_path / "shot.blend", scene.marks, scene.cost, ())
