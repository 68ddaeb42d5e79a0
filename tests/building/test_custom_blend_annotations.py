"""`stopdown mark`: what a custom .blend holds is rendered as it is marked, or refused with the real reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blend_scenes_marked import (
    MARKED,
    baked_body,
    bezier,
    bone,
    brown_card,
    by_nodes,
    fan,
    keyed_lens,
    lamp_swings,
    marker_cameras,
    plain,
    remapped,
    shape_key,
    spinning,
    stepped,
    sun_flickers,
    sun_sets,
    unused_flicker,
    wall_slides,
    whole_frames,
    world_by_driver,
)
from blend_scenes_refused import REFUSED
from blender_child import run_in_blender
from custom_blend_support import FRAMES, STEP_M, make_and_mark

from generator.recipe.blend_file import read_annotation
from scenes.axes import AXES
from scenes.families import draw_scene
from scenes.families.blend import blend_family
from scenes.families.blend_annotation import Annotation
from scenes.families.blend_proof import why_unproven
from scenes.spec import Shot

LAWS = {"shutter": AXES["shutter"].default_law}
ALL = {"shutter": AXES["shutter"].default_law, "temperature": AXES["temperature"].default_law}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("own")


@pytest.fixture(scope="module")
def told(folder: Path) -> dict[str, Any]:
    spoilers = {spoil.__name__: spoil for spoil in (*REFUSED, *MARKED)}
    return run_in_blender(make_and_mark, str(folder), spoilers, {})


@pytest.mark.parametrize("spoil", REFUSED, ids=lambda spoil: spoil.__name__)
def test_what_would_render_otherwise_than_it_is_marked_is_refused_with_the_reason(told: dict[str, Any], spoil: Any) -> None:
    said = told[spoil.__name__]
    assert isinstance(said, str), "the file was marked"
    assert REFUSED[spoil] in said and "\n" not in said


@pytest.mark.parametrize("spoil", MARKED, ids=lambda spoil: spoil.__name__)
def test_what_renders_as_it_is_marked_is_marked(told: dict[str, Any], spoil: Any) -> None:
    assert not isinstance(told[spoil.__name__], str), told[spoil.__name__]


def reason(annotation: Annotation, axis: str = "shutter", seed: int = 0) -> str:
    scene = draw_scene(blend_family(annotation), np.random.default_rng(seed), Shot(width=64, height=64, fps=16, frames=5), ALL)
    return why_unproven(annotation, scene, axis, ALL)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (plain, ""),
        (baked_body, "'Card', which moves too, speeds up"),
        (bone, ""),
        (by_nodes, ""),
        (whole_frames, "moves in steps"),
        (remapped, ""),
        (marker_cameras, ""),
        (bezier, "speeds up or slows down"),
        (stepped, "moves in steps"),
        (spinning, "'Ball' turns"),
        (fan, "'Card', which moves too, turns"),
        (shape_key, "changes its shape or size"),
        (keyed_lens, "focal length is animated"),
    ],
    ids=lambda part: getattr(part, "__name__", ""),
)
def test_a_motion_is_proven_or_the_real_reason_is_known_before_rendering(told: dict[str, Any], spoil: Any, said: str) -> None:
    annotation = told[spoil.__name__][0]
    assert said in reason(annotation) and bool(said) == bool(reason(annotation))


@pytest.mark.parametrize(
    ("spoil", "shutter", "temperature"),
    [
        (sun_flickers, "light 'Sun', energy changes by 50% a frame, which flickers", ""),
        (sun_sets, "", "the light or colour of the patch 'Card' changes, as from"),
        (world_by_driver, "world 'World', Background: Strength changes by", ""),
        (wall_slides, "material 'Wall', Mapping: Location changes", ""),
        (lamp_swings, "light 'Lamp', its place or direction changes", ""),
        (unused_flicker, "", ""),
        (brown_card, "", "the patch 'Card' looks like a neutral under"),
    ],
    ids=lambda part: getattr(part, "__name__", ""),
)
def test_a_look_that_changes_is_proven_or_named_before_rendering(
    told: dict[str, Any], spoil: Any, shutter: str, temperature: str
) -> None:
    annotation, notes = told[spoil.__name__]
    for axis, said in (("shutter", shutter), ("temperature", temperature)):
        assert said in reason(annotation, axis) and bool(said) == bool(reason(annotation, axis))
    assert any("its look changes" in note for note in notes) == bool(annotation.changing)
    assert any("no temperature can be verified" in note for note in notes) == bool(temperature)


def test_keys_on_the_edge_of_the_range_spoil_a_clip_that_reaches_it_and_others_are_drawn(told: dict[str, Any]) -> None:
    assert {reason(told["edge_keys"][0], seed=seed) for seed in range(20)} == {""}
    assert "'Ball' starts or stops inside an exposure" in reason(told["only_five_frames"][0])


@pytest.mark.parametrize("spoil", [plain, bone, by_nodes, remapped], ids=lambda spoil: spoil.__name__)
def test_places_are_those_of_the_evaluated_thing(told: dict[str, Any], spoil: Any) -> None:
    ball = told[spoil.__name__][0].subject
    step_m = STEP_M / (2 if spoil is remapped else 1) / ball.steps
    np.testing.assert_allclose(np.diff(np.array(ball.path_m), axis=0), [[step_m, 0.0, 0.0]] * (len(ball.path_m) - 1), atol=2e-6)
    assert len(ball.path_m) == (FRAMES + 1) * ball.steps + 1 and not any(ball.loose_m)


def test_a_patch_is_marked_by_what_the_camera_sees_of_it(told: dict[str, Any]) -> None:
    annotation = told["plain"][0]
    x_m, _, z_m = annotation.patch.spot_m
    assert abs(x_m) < 0.1 and abs(z_m + 1.6) < 0.15 and 0.9 < annotation.patch.spot_size_m < 1.6
    assert reason(annotation, "temperature") == "" and "round lights" in reason(annotation, "aperture")


def test_what_was_switched_off_is_said(told: dict[str, Any]) -> None:
    (said,) = told["keyed_optics"][1]
    for path in (
        "render.motion_blur_shutter",
        "dof.aperture_fstop",
        "dof.focus_distance",
        "cycles.samples",
        "film_transparent",
    ):
        assert path in said
    assert any("timeline markers" in note for note in told["marker_cameras"][1])
    assert any("-2 stops" in note for note in told["bright_but_exposed"][1])


def test_marks_are_read_back_and_old_ones_are_not_trusted(told: dict[str, Any], folder: Path) -> None:
    from scenes.errors import InputError

    annotation, cost = read_annotation(folder / "plain.blend")
    assert annotation == told["plain"][0] and cost.of_frame(0.01, 32) > 0
    path = folder / "plain.marks.json"
    text = path.read_text()
    path.write_text(text.replace('"format": 2', '"format": 1'))
    with pytest.raises(InputError, match="earlier Stopdown"):
        read_annotation(folder / "plain.blend")
    path.write_text(text)
