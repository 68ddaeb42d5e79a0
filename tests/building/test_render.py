"""The renderer against closed forms and against itself; every picture is a real render, at most 96 px, in a spawned process."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from blender_child import run_in_blender
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from generator.errors import RenderError
from generator.recipe.render_settings import RenderSettings, Softness
from generator.render.engine.regions import Box, merged
from generator.render.scene_renderer import SceneRenderer
from scenes.camera import circle_of_confusion_px, image_plane_velocity, unproject
from scenes.motion import location_at, orientation_at
from scenes.palette import to_bytes
from scenes.shading import Fidelity
from scenes.spec import Background, Camera, Light, Material, Motion, Optics, SceneSpec, Shot, Solid, Vec3

CAMERA = Camera(location_m=(0, -6, 0), target_m=(0, 0, 0), focal_length_mm=50, focus_distance_m=6)
FACING = (math.sqrt(0.5), math.sqrt(0.5), 0.0, 0.0)  # turns a plane's +Z towards CAMERA
BLACK = Background(name="black", bottom=(0, 0, 0), top=(0, 0, 0))
SKY = Background(name="sky", bottom=(0.1, 0.1, 0.15), top=(0.3, 0.45, 0.7))
FIXED = RenderSettings(samples=32, adaptive_threshold=0.0)
FINE = RenderSettings(samples=512, adaptive_threshold=0.0)
GLOW = Material(color_name="white", albedo=(1, 1, 1), emission=1.0)
RED = Material(color_name="red", albedo=(0.7, 0.1, 0.1))
GREEN = Material(color_name="green", albedo=(0.1, 0.6, 0.2))
WHITE = Material(color_name="white", albedo=(0.8, 0.8, 0.8))


def solid(name: str, kind: str, motion: Motion, *, size: float = 1.0, material: Material = RED) -> Solid:
    return Solid(name=name, role="subject", kind=kind, scale_m=(size, size, size), material=material, motion=motion)


def scene(
    *solids: Solid, size: int = 64, frames: int = 1, background: Background = BLACK, camera: Camera = CAMERA
) -> SceneSpec:
    return SceneSpec(
        family="test",
        shot=Shot(width=size, height=size, fps=16, frames=frames),
        camera=camera,
        light=Light(direction=(0.5, -1, 0.8)),
        background=background,
        solids=solids,
    )


def busy_scene(frames: int = 5) -> SceneSpec:
    """Two moving things, one of them turning and passing behind a still one, before a gradient."""
    return scene(
        solid("ball", "sphere", Motion(location_m=(-1.5, 0.2, 0.9), velocity_m_per_s=(6, 0, -1)), size=0.8),
        solid(
            "box",
            "cube",
            Motion(location_m=(0.6, 0.5, -0.9), velocity_m_per_s=(1, 0, 0), spin_axis=(0, 1, 0), spin_rad_per_s=9.0),
            size=0.7,
            material=WHITE,
        ),
        solid("post", "cylinder", Motion(location_m=(0.2, -0.8, 0.4)), size=0.6, material=GREEN),
        size=96,
        frames=frames,
        background=SKY,
    )


def frames_of(spec: SceneSpec, settings: RenderSettings, *optics: Optics, threads: int = 1) -> list[np.ndarray]:
    """Render in this process; call it through `run_in_blender`."""
    renderer = SceneRenderer(spec, settings, threads)
    return [np.array(renderer.frames(each)) for each in optics]


def moments(picture_HW: np.ndarray) -> tuple[float, float, float, float]:
    """Return the centroid (x, y) in pixels and the variances about it."""
    weights = picture_HW / picture_HW.sum()
    y_HW, x_HW = np.mgrid[: picture_HW.shape[0], : picture_HW.shape[1]] + 0.5
    x, y = float((weights * x_HW).sum()), float((weights * y_HW).sum())
    return x, y, float((weights * (x_HW - x) ** 2).sum()), float((weights * (y_HW - y) ** 2).sum())


def vec3(values: np.ndarray) -> Vec3:
    x, y, z = (float(part) for part in values)
    return (x, y, z)


# --- settings and regions, without Blender -------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [{"sample": 3}, {"samples": 0}, {"fidelity": "eevee"}, {"adaptive_threshold": -0.1}])
def test_settings_refuse_what_they_do_not_know(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RenderSettings.model_validate(wrong)


@st.composite
def boxes(draw: Callable[[st.SearchStrategy[int]], int]) -> Box:
    left, top = draw(st.integers(0, 90)), draw(st.integers(0, 90))
    return Box(left=left, top=top, right=left + draw(st.integers(1, 40)), bottom=top + draw(st.integers(1, 40)))


@given(st.lists(boxes(), max_size=6), st.integers(0, 2000))
def test_merged_boxes_cover_the_same_pixels_at_no_more_cost(given_boxes: list[Box], overhead_px: int) -> None:
    joined = merged(given_boxes, overhead_px)
    for box in given_boxes:
        assert any(one.around(box) == one for one in joined)
    assert sum(one.area + overhead_px for one in joined) <= sum(one.area + overhead_px for one in given_boxes)


@pytest.mark.parametrize(
    ("wanted", "softness", "samples"),
    [
        ({}, "sharp", 128),
        ({}, "lens", 64),
        ({}, "motion", 20),
        ({"samples": 40}, "motion", 40),
        ({"fidelity": "lit"}, "lens", 128),
    ],
)
def test_a_pixel_takes_the_samples_asked_for(wanted: dict[str, object], softness: Softness, samples: int) -> None:
    assert RenderSettings.model_validate(wanted).samples_for(softness) == samples


# --- regions against whole frames, still scenes, caching ----------------------------------------------------------------


def regions_and_whole(optics: Optics) -> tuple[np.ndarray, np.ndarray, float]:
    spec = busy_scene()
    renderer = SceneRenderer(spec, FIXED, 1)
    by_regions = np.array(renderer.frames(optics))
    area = sum(box.area for boxes_here in renderer.boxes(optics) for box in boxes_here)
    [whole] = frames_of(spec, FIXED.model_copy(update={"regions": False}), optics)
    return by_regions, whole, area / (96 * 96 * spec.shot.frames)


@pytest.mark.parametrize("optics", [Optics(), Optics(exposure_s=1 / 16), Optics(exposure_s=1 / 40, f_number=1.0)])
def test_regions_over_a_plate_are_the_whole_frame(optics: Optics) -> None:
    by_regions, whole, share = run_in_blender(regions_and_whole, optics)
    assert share < 0.6, "regions must be smaller than the frame, or this compares nothing"
    assert by_regions.std(axis=0).max() > 0.05
    off = np.abs(to_bytes(by_regions).astype(int) - to_bytes(whole).astype(int))
    assert off.max() <= 1


def still_renders() -> tuple[bool, bool, int]:
    renderer = SceneRenderer(scene(solid("ball", "sphere", Motion(location_m=(0, 0, 0))), frames=5), FIXED, 1)
    first = renderer.frames(Optics(exposure_s=1 / 80))
    return renderer.frames(Optics(exposure_s=1 / 20)) is first, bool((first == first[:1]).all()), len(first)


def test_a_still_scene_is_rendered_once_for_all_frames_and_exposures() -> None:
    assert run_in_blender(still_renders) == (True, True, 5)


# --- closed forms -----------------------------------------------------------------------------------------------------------


def test_points_project_where_the_camera_says() -> None:
    camera = CAMERA.model_copy(update={"location_m": (1, -6, 2), "target_m": (0.3, 0.2, 0.1)})
    places = [(16.3, 20.7, 2.0), (49.2, 14.6, 5.0), (31.9, 50.4, 9.0)]
    shot = scene(camera=camera).shot
    dots = [
        solid(f"dot {x}", "icosphere", Motion(location_m=vec3(unproject(camera, shot, x, y, d))), size=0.05 * d, material=GLOW)
        for x, y, d in places
    ]
    [[picture]] = run_in_blender(frames_of, scene(*dots, camera=camera), FINE, Optics())
    for x, y, _ in places:
        window = np.s_[int(y) - 9 : int(y) + 10, int(x) - 9 : int(x) + 10]
        found_x, found_y, _, _ = moments(picture[window][..., 0])
        assert found_x + int(x) - 9 == pytest.approx(x, abs=0.05)
        assert found_y + int(y) - 9 == pytest.approx(y, abs=0.05)


@pytest.mark.parametrize("depth_m", [3.0, 20.0])
def test_blur_discs_have_the_diameter_of_the_thin_lens(depth_m: float) -> None:
    camera = CAMERA.model_copy(update={"focal_length_mm": 300.0})
    shot = scene(camera=camera).shot
    place = vec3(unproject(camera, shot, 32.2, 31.7, depth_m))
    dot = solid("dot", "icosphere", Motion(location_m=place), size=0.01 * depth_m, material=GLOW)
    f_numbers = (1.4, 2.8)
    pictures = run_in_blender(
        frames_of, scene(dot, camera=camera), FINE, Optics(), *(Optics(f_number=each) for each in f_numbers)
    )
    sharp = sum(moments(pictures[0][0, ..., 0])[2:]) / 2
    for f_number, picture in zip(f_numbers, pictures[1:], strict=True):
        x, y, across, down = moments(picture[0, ..., 0])
        diameter_px = 4 * math.sqrt((across + down) / 2 - sharp)  # a uniform disc has variance d^2 / 16 along each axis
        assert diameter_px == pytest.approx(circle_of_confusion_px(camera, shot, f_number, depth_m), rel=0.015)
        assert (x, y) == pytest.approx((32.2, 31.7), abs=0.1)


EXPOSURES_S = (1 / 400, 1 / 80, 1 / 30, 1 / 16)


def test_motion_blur_is_a_linear_ramp_of_the_right_length_about_the_same_centre() -> None:
    speed_px, shot = 200.0, scene(frames=5).shot
    start = vec3(unproject(CAMERA, shot, 24.0, 32.0, 6.0))
    velocity = vec3(image_plane_velocity(CAMERA, shot, (speed_px, 0.0), 6.0))
    bar = solid(
        "bar", "plane", Motion(location_m=start, velocity_m_per_s=velocity, orientation=FACING), size=1.2, material=GLOW
    )
    pictures = run_in_blender(
        frames_of, scene(bar, frames=5), FINE, Optics(), *(Optics(exposure_s=each) for each in EXPOSURES_S)
    )
    row_TW = [picture[:, 30:34, :, 0].mean(axis=1) for picture in pictures]
    width_px = 1.2 / 6 * 50 / 36 * 64
    for exposure_s, row in zip(EXPOSURES_S, row_TW[1:], strict=True):
        for frame in (0, 1):  # later frames leave the picture
            x, _, across, _ = moments(row[frame][None])
            assert x == pytest.approx(24.0 + speed_px * frame / 16, abs=0.1)
            if speed_px * exposure_s >= 2.0:  # a shorter blur drowns in the width of the bar
                sharp = moments(row_TW[0][frame][None])[2]
                length_px = math.sqrt(12 * (across - sharp))
                assert length_px == pytest.approx(speed_px * exposure_s, rel=0.01, abs=0.1)
    # In linear light the edge is straight: at 1/16 s it rises from 0 to its full height over 12.5 px.
    left = 24.0 + speed_px / 16 - width_px / 2 - speed_px / 32
    places = np.arange(math.ceil(left + 1), math.floor(left + 11.5))
    height = min(1.0, width_px / (speed_px / 16))
    expected = (places + 0.5 - left) / (speed_px / 16)
    assert height == 1.0
    assert row_TW[4][1][places] == pytest.approx(expected, abs=0.02)


def test_motion_is_where_the_spec_says_at_every_frame() -> None:
    spec = busy_scene()
    [moving] = run_in_blender(frames_of, spec, FIXED, Optics())
    for frame in (1, 4):
        frozen = [
            each.model_copy(
                update={
                    "motion": Motion(
                        location_m=vec3(location_at(each.motion, frame / 16)),
                        orientation=orientation_at(each.motion, frame / 16),
                    )
                }
            )
            for each in spec.solids
        ]
        [still] = run_in_blender(frames_of, spec.model_copy(update={"solids": tuple(frozen)}), FIXED, Optics())
        off = np.abs(moving[frame] - still[0])
        assert np.mean(off > 0.1) < 0.002, "only the noise of edges may differ"
        assert off.mean() < 2e-3


# --- fidelities -------------------------------------------------------------------------------------------------------------


def lambert(fidelity: Fidelity) -> np.ndarray:
    wall = solid("wall", "plane", Motion(location_m=(0, 0, 0), orientation=FACING), size=2.0, material=WHITE)
    [picture] = frames_of(scene(wall, background=SKY), FIXED.model_copy(update={"fidelity": fidelity}), Optics())
    return picture[0]


def test_lit_surfaces_have_the_radiance_of_the_analytic_law_and_every_fidelity_shows_the_backdrop() -> None:
    pictures = {fidelity: run_in_blender(lambert, fidelity) for fidelity in ("flat", "lit", "pbr")}
    light = Light(direction=(0.5, -1, 0.8))
    cosine = 1 / math.sqrt(0.25 + 1 + 0.64)
    expected = 0.8 * (light.ambient + (1 - light.ambient) * cosine)
    assert pictures["flat"][24:40, 24:40] == pytest.approx(expected, rel=1e-4)
    assert pictures["lit"][24:40, 24:40].mean() == pytest.approx(expected, rel=0.03)
    heights = 1 - (np.arange(64) + 0.5) / 64
    backdrop = np.array(SKY.bottom) + (np.array(SKY.top) - np.array(SKY.bottom)) * heights[:, None]
    for picture in pictures.values():
        assert picture[:, 3] == pytest.approx(backdrop, abs=2e-3)


def shadowed(fidelity: Fidelity) -> np.ndarray:
    floor = solid("floor", "plane", Motion(location_m=(0, 0, -1)), size=6.0, material=WHITE)
    ball = solid("ball", "sphere", Motion(location_m=(0, 0, -0.2)), size=1.2)
    spec = scene(floor, ball).model_copy(
        update={
            "light": Light(direction=(0.2, 0.1, 1.0)),
            "camera": CAMERA.model_copy(update={"location_m": (0, -5, 3)}),
        }
    )
    [picture] = frames_of(spec, FIXED.model_copy(update={"fidelity": fidelity}), Optics())
    return picture[0]


def test_light_transport_casts_shadows_and_flat_does_not() -> None:
    flat, lit = run_in_blender(shadowed, "flat"), run_in_blender(shadowed, "lit")
    floor = np.ptp(flat, axis=-1) < 1e-3 * flat.max()  # grey, and not black: the analytic law lights all of it alike
    floor &= flat[..., 0] > 0.99 * flat[..., 0].max()
    assert floor.mean() > 0.2
    assert np.percentile(lit[floor][:, 0], 2) < 0.6 * np.percentile(lit[floor][:, 0], 90)


# --- determinism, files, errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fidelity", ["flat", "lit"])
def test_the_same_frames_whatever_the_threads_and_processes(fidelity: Fidelity) -> None:
    settings = RenderSettings(fidelity=fidelity)
    optics = Optics(exposure_s=1 / 30, f_number=1.4)
    made = [to_bytes(run_in_blender(frames_of, busy_scene(1), settings, optics, threads=n)[0]) for n in (1, 1, 2)]
    assert made[0].std() > 5
    for other in made[1:]:
        assert np.abs(made[0].astype(int) - other.astype(int)).max() <= 1


def saved_and_opened(path: Path) -> tuple[np.ndarray, np.ndarray]:
    optics = Optics(exposure_s=1 / 20, f_number=2.0)
    renderer = SceneRenderer(busy_scene(), FIXED, 1)
    kept = np.array(renderer.frames(optics))
    renderer.save_blend(path, optics)

    import bpy

    from generator.render.engine.cycles import Scratch, render_frame

    bpy.ops.wm.open_mainfile(filepath=str(path))
    with Scratch() as scratch:
        opened = render_frame(bpy.context.scene, 2, Box(left=0, top=0, right=96, bottom=96), 32, scratch)
    return kept[2], opened


def test_a_saved_file_renders_the_same_clip(tmp_path: Path) -> None:
    kept, opened = run_in_blender(saved_and_opened, tmp_path / "scene.blend")
    assert opened.std() > 0.05
    off = np.abs(kept - opened)  # two sampling patterns: only the noise of soft edges may differ
    assert off.max() < 0.15
    assert off.mean() < 2e-3


def save_nowhere(path: Path) -> None:
    SceneRenderer(busy_scene(), FIXED, 1).save_blend(path, Optics())


def test_what_blender_complains_about_becomes_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(RenderError, match=r"Blender failed: .+") as caught:
        run_in_blender(save_nowhere, tmp_path / "file" / "scene.blend")
    assert "\n" not in str(caught.value)


def print_error(line: str) -> None:
    SceneRenderer(scene(), FIXED, 1)
    import ctypes

    from generator.render.engine.cycles import blender_errors

    with blender_errors():
        ctypes.CDLL(None).puts(line.encode())


def test_errors_that_blender_only_prints_are_caught() -> None:
    with pytest.raises(RenderError, match="no space on the moon"):
        run_in_blender(print_error, "Error: no space on the moon")
    run_in_blender(print_error, "Fra:1 Mem:12.5M | all is well")


@pytest.mark.parametrize("exposure_s", [0.0, -0.01, 0.07])
def test_an_impossible_exposure_is_refused(exposure_s: float) -> None:
    with pytest.raises(RenderError, match="at most the frame interval"):
        run_in_blender(frames_of, busy_scene(), FIXED, Optics(exposure_s=exposure_s))
