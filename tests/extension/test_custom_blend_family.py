"""Family `blend`: what closed forms are drawn from an annotation, without Blender."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scenes.axes import AXES
from scenes.axes.shutter.axis import expected_motion
from scenes.errors import SceneError
from scenes.families import draw_scene
from scenes.families.blend import blend_family
from scenes.families.blend_annotation import AnnotatedObject, Annotation, Changing
from scenes.families.blend_proof import why_unproven
from scenes.spec import SceneSpec, Shot

SHOT = Shot(width=64, height=48, fps=16, frames=5)
LAWS = {"shutter": AXES["shutter"].default_law}
SIZE = (0.4, 0.4, 0.4)


def along(speed_m_per_frame: float, bend_m: float = 0.0, frames: int = 12) -> tuple[tuple[float, float, float], ...]:
    """Return a path over the frames of a file and one on both sides, past the middle of the picture, bent or straight."""
    middle = (frames + 1) / 2
    return tuple((speed_m_per_frame * (k - middle), 0.0, bend_m * (k - middle) ** 2) for k in range(frames + 2))


def annotation(**changes: Any) -> Annotation:
    entries: dict[str, Any] = {
        "sha256": "0" * 64, "file": "shot.blend", "scene": "Scene", "camera": "Camera", "caption": "A ball", "fps": 16,
        "first_frame": 101, "last_frame": 112, "location_m": (0.0, -5.0, 0.0), "target_m": (0.0, -4.0, 0.0),
        "focal_length_mm": 36.0, "sensor_fit": "AUTO", "sensor_width_mm": 36.0, "sensor_height_mm": 24.0,
        "focus_distance_m": 5.0, "subject": AnnotatedObject(name="ball", size_m=SIZE, path_m=along(0.1)),
        "patch": AnnotatedObject(name="card", size_m=SIZE, path_m=along(0.0)),
    }  # fmt: skip
    return Annotation.model_validate(entries | changes)


def drawn(seed: int = 0, shot: Shot = SHOT, **changes: Any) -> SceneSpec:
    return draw_scene(blend_family(annotation(**changes)), np.random.default_rng(seed), shot, LAWS)


@pytest.mark.parametrize("speed", [0.03, 0.1, -0.2])
def test_an_even_path_before_a_still_camera_has_its_closed_form(speed: float) -> None:
    scene = drawn(subject=AnnotatedObject(name="ball", size_m=SIZE, path_m=along(speed)))
    (moving,) = expected_motion(scene)
    assert moving.speed_px_per_s == pytest.approx(abs(speed) * 16 / 5.0 * 64)  # 36 mm on 36 mm: the width is the focal length
    assert [solid.name for solid in scene.with_role("patch")] == ["card"]


def test_a_stretch_is_drawn_inside_the_files_range_and_places_follow_it() -> None:
    starts = set()
    for seed in range(60):
        scene = drawn(seed)
        assert scene.blend is not None and 101 <= scene.blend.first_frame <= 108
        starts.add(scene.blend.first_frame)
        (ball,) = scene.with_role("subject")
        assert ball.motion.location_m[0] == pytest.approx(0.1 * (scene.blend.first_frame - 101 + 1 - 6.5))
    assert len(starts) > 3


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({"unproven": "the camera moves"}, []),
        ({"subject": AnnotatedObject(name="ball", size_m=SIZE, path_m=along(0.1, bend_m=0.05))}, ["card"]),
        ({"patch": AnnotatedObject(name="card", size_m=SIZE, path_m=along(0.01))}, ["ball"]),
        ({"patch": None}, ["ball"]),
        ({"location_m": (0.0, 5.0, 0.0), "target_m": (0.0, 6.0, 0.0)}, []),  # behind the camera
    ],
)
def test_what_closed_forms_do_not_know_is_left_without_proof(changes: dict[str, Any], left: list[str]) -> None:
    assert [solid.name for solid in drawn(**changes).solids] == left


def test_a_stretch_in_which_the_subject_leaves_the_picture_is_not_drawn() -> None:
    fast = AnnotatedObject(name="ball", size_m=SIZE, path_m=along(0.7))
    for seed in range(20):
        scene = drawn(seed, subject=fast)
        assert scene.blend is not None and 103 <= scene.blend.first_frame <= 106
    with pytest.raises(SceneError, match="'ball' leaves the picture"):
        drawn(subject=AnnotatedObject(name="ball", size_m=SIZE, path_m=along(3.0)))


@pytest.mark.parametrize(
    ("fit", "size", "expected_mm"),
    [("AUTO", (64, 48), 36.0), ("AUTO", (48, 64), 27.0), ("HORIZONTAL", (48, 64), 36.0), ("VERTICAL", (64, 48), 32.0)],
)
def test_the_sensor_is_fitted_as_blender_fits_it(fit: str, size: tuple[int, int], expected_mm: float) -> None:
    shot = SHOT.model_copy(update={"width": size[0], "height": size[1]})
    assert drawn(shot=shot, sensor_fit=fit).camera.sensor_width_mm == pytest.approx(expected_mm)


def flicker(gentle: bool, share: float, at: int) -> Changing:
    """Return a look that changes by a share of its value in one frame of a file of twelve and one on both sides."""
    by = [0.0] * 4 * 13
    by[4 * (at + 1)] = share
    return Changing(name="light 'Sun', energy", gentle=gentle, steps=4, by=tuple(by))


@pytest.mark.parametrize(("gentle", "share", "verified"), [(True, 0.03, True), (True, 0.06, False), (False, 0.001, False)])
def test_a_look_that_changes_spoils_the_frames_it_changes_in_and_others_are_drawn(
    gentle: bool, share: float, verified: bool
) -> None:
    looks = annotation(format=2, changing=(flicker(gentle, share, at=2),))
    for first in range(8):
        scene = drawn().model_copy(update={"blend": drawn().blend.model_copy(update={"first_frame": 101 + first})})
        why = why_unproven(looks, scene, "shutter", LAWS)
        assert ("Sun" in why) == (not verified and first <= 2), (first, why)
    for seed in range(20):
        scene = drawn(seed, format=2, changing=(flicker(gentle, share, at=2),))
        assert not why_unproven(looks, scene, "shutter", LAWS)


def test_marks_without_changing_looks_say_nothing_of_them() -> None:
    assert not {"changing", "patch_unproven"} & annotation(format=2).model_dump(mode="json").keys()


def test_without_a_subject_no_shutter_is_shown() -> None:
    with pytest.raises(SceneError, match="--subject"):
        drawn(subject=None)


def test_scenes_of_other_families_say_nothing_of_a_file() -> None:
    scene = drawn()
    assert "blend" in scene.model_dump(mode="json")
    plain = scene.model_copy(update={"blend": None})
    assert "blend" not in plain.model_dump(mode="json") and SceneSpec.model_validate_json(plain.model_dump_json()) == plain
