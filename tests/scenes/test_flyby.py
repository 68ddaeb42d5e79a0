"""The `flyby` family: what every scene promises, over many seeds, formats and exposure laws."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from scenes.control_axis import UnitLaw
from scenes.errors import SceneError
from scenes.families.base import draw_scene
from scenes.families.flyby import (
    CHORD_LIMIT,
    FLYBY,
    MIN_LUMA_CONTRAST,
    SPIN_SHARE,
    luma_gap,
    mean_chord_px,
    speed_floor_px,
)
from scenes.families.rules import background_at, bounds_px, depth_m, image_velocity_px_per_s, shutter_times_s, swept_bounds_px
from scenes.spec import SceneSpec, Shot

LAWS = {"shutter": UnitLaw(neutral=1 / 80, ratio=5.0)}
SIZES = ((512, 512), (832, 480), (480, 832), (256, 144), (64, 64))


def drawn(seed: int, width: int, height: int, frames: int, laws=LAWS, fps: int = 16) -> SceneSpec:
    return draw_scene(FLYBY, np.random.default_rng(seed), Shot(width=width, height=height, fps=fps, frames=frames), laws)


def speed_px(solid, scene: SceneSpec, time_s: float = 0.0) -> float:
    return math.hypot(*image_velocity_px_per_s(solid, scene.camera, scene.shot, time_s)) / scene.shot.fps


@pytest.mark.parametrize("frames", [1, 5, 9, 13])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_every_scene_keeps_its_promises(width, height, frames):
    for seed in range(200 if (width, frames) in ((512, 9), (64, 5)) else 20):
        scene = drawn(seed, width, height, frames)
        times_s = shutter_times_s(scene.shot, LAWS)
        assert 1 <= len(scene.solids) <= 4
        assert len({solid.name for solid in scene.solids}) == len(scene.solids)
        behind = tuple(background_at(scene.background, scene.shot, y_px) for y_px in (0.0, float(height)))
        for solid in scene.solids:
            x0, y0, x1, y1 = swept_bounds_px(solid, scene.camera, scene.shot, times_s)
            assert x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height
            speeds = [speed_px(solid, scene, time_s) for time_s in times_s]
            assert np.ptp(speeds) < 1e-6 * speeds[0]  # constant in the picture
            assert np.ptp([depth_m(solid, scene.camera, time_s) for time_s in times_s]) < 1e-9
            assert speeds[0] >= 0.999 * speed_floor_px(scene.shot, 1.0)
            assert speeds[0] <= CHORD_LIMIT * mean_chord_px(solid, scene.camera, scene.shot, 0.0)
            assert luma_gap(solid.material.albedo, scene.light, behind) >= MIN_LUMA_CONTRAST


@pytest.mark.parametrize("frames", [1, 5, 9])
def test_swept_areas_do_not_meet(frames):
    for seed in range(15):
        scene = drawn(seed, 512, 512, frames)
        times_s = np.linspace(-1 / 32, (frames - 1) / 16 + 1 / 32, 8)
        for one, other in itertools.combinations(scene.solids, 2):
            for first, second in itertools.product(times_s, times_s):
                centers = [
                    np.array(bounds_px(solid, scene.camera, scene.shot, float(time_s))).reshape(2, 2).mean(axis=0)
                    for solid, time_s in ((one, first), (other, second))
                ]
                gap_px = float(np.hypot(*(centers[0] - centers[1])))
                assert gap_px > 0.25 * mean_chord_px(one, scene.camera, scene.shot, 0.0)


def test_the_shortest_exposure_shows_and_small_pictures_blur_by_8_px():
    for seed in range(25):
        fastest = max(speed_px(solid, scene) for scene in [drawn(seed, 512, 512, 9)] for solid in scene.solids)
        assert fastest / 25 > 1.3  # pixels of blur at 1/400 s, 16 fps
        for frames in (1, 5):
            scene = drawn(seed, 64, 64, frames)
            assert max(speed_px(solid, scene) for solid in scene.solids) >= 7.6


def test_spin_turns_rims_slowly_beside_the_motion():
    spins = 0
    for seed in range(60):
        scene = drawn(seed, 512, 512, 9)
        for solid in scene.solids:
            x0, y0, x1, y1 = bounds_px(solid, scene.camera, scene.shot, 0.0)
            rim_px_per_frame = abs(solid.motion.spin_rad_per_s) / 16 * math.hypot(x1 - x0, y1 - y0) / 2
            assert rim_px_per_frame <= 1.5 * SPIN_SHARE * speed_px(solid, scene)
            spins += solid.motion.spin_rad_per_s != 0
    assert spins > 10


def test_scenes_are_pure_and_varied():
    assert drawn(7, 512, 512, 9).model_dump_json() == drawn(7, 512, 512, 9).model_dump_json()
    scenes = [drawn(seed, 256, 256, 1 + 4 * (seed % 3)) for seed in range(120)]
    solids = [solid for scene in scenes for solid in scene.solids]
    assert len({solid.kind for solid in solids}) >= 8 and "torus" not in {solid.kind for solid in solids}
    assert len({solid.material.color_name for solid in solids}) >= 12
    assert len({scene.background.name for scene in scenes}) >= 10
    assert {len(scene.solids) for scene in scenes} >= {1, 2, 3}
    headings = [math.atan2(*image_velocity_px_per_s(s.solids[0], s.camera, s.shot, 0.0)[::-1]) for s in scenes]
    assert np.histogram(headings, bins=8, range=(-math.pi, math.pi))[0].min() >= 2
    assert np.ptp([scene.camera.focal_length_mm for scene in scenes]) > 30


def test_content_does_not_depend_on_who_else_draws():
    rng = np.random.default_rng(3)
    first = draw_scene(FLYBY, rng, Shot(width=128, height=128, fps=16, frames=5), LAWS)
    assert first == drawn(3, 128, 128, 5)
    assert first != drawn(4, 128, 128, 5)


@pytest.mark.parametrize("frames", [1, 5, 9, 13])
def test_without_the_shutter_axis_motion_is_gentle(frames):
    for seed in range(40):
        scene = drawn(seed, 256, 256, frames, laws={})
        for solid in scene.solids:
            assert 0 < speed_px(solid, scene) <= 0.041 * 256
            x0, y0, x1, y1 = swept_bounds_px(solid, scene.camera, scene.shot, scene.shot.times_s)
            assert x0 >= 0 and y0 >= 0 and x1 <= 256 and y1 <= 256


def test_other_laws_and_rates_are_met_too():
    for fps, law in ((24, UnitLaw(neutral=1 / 120, ratio=4.0)), (8, UnitLaw(neutral=1 / 50, ratio=3.0))):
        for seed in range(20):
            scene = drawn(seed, 320, 240, 9, laws={"shutter": law}, fps=fps)
            for solid in scene.solids:
                blur_px = speed_px(solid, scene) * law.value(1.0) * fps
                assert blur_px <= CHORD_LIMIT * mean_chord_px(solid, scene.camera, scene.shot, 0.0)


def test_an_impossible_format_fails_loudly():
    with pytest.raises(SceneError, match="flyby"):
        drawn(0, 16, 256, 13)
