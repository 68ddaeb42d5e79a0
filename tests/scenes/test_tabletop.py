"""The tabletop family: it can always be drawn, its card is seen and unclipped, and nothing in it imitates a neutral."""

from __future__ import annotations

import numpy as np
import pytest

from scenes.axes.temperature.axis import Temperature
from scenes.axes.temperature.probe import imitates_neutral
from scenes.control_axis import UnitLaw
from scenes.errors import SceneError
from scenes.families.base import draw_scene
from scenes.families.rules import center_px, none_hidden, swept_bounds_px
from scenes.families.tabletop import TABLETOP
from scenes.motion import matrix_33
from scenes.primitives import mesh
from scenes.spec import SceneSpec, Shot
from scenes.white import neutral_rgb

AXIS = Temperature()
LAWS = {"temperature": AXIS.default_law}
SHOTS = [(512, 512, 9), (64, 64, 1), (64, 64, 13), (320, 176, 5), (176, 320, 1), (1280, 720, 5)]


def scene_of(seed: int, shot: tuple[int, int, int], laws: dict[str, UnitLaw] = LAWS) -> SceneSpec:
    width, height, frames = shot
    made = Shot(width=width, height=height, fps=16, frames=frames)
    return draw_scene(TABLETOP, np.random.default_rng(seed), made, laws)


@pytest.mark.parametrize("shot", SHOTS)
def test_every_seed_gives_a_scene_that_shows_its_card(shot: tuple[int, int, int]) -> None:
    for seed in range(40):
        scene = scene_of(seed, shot)
        patches, things = scene.with_role("patch"), scene.with_role("subject", "prop")
        assert 5 <= len(patches) <= 7
        assert 2 <= len(things) <= 5
        boxes = [swept_bounds_px(solid, scene.camera, scene.shot, scene.shot.times_s) for solid in patches]
        assert min(min(x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes) >= 3
        area = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes) / (shot[0] * shot[1])
        assert area >= 0.02 * min(shot[:2]) / max(shot[:2])
        assert none_hidden(0.0, roles=("patch",))(scene, LAWS) is None


def test_clips_move_and_stills_do_not() -> None:
    moving = [[solid.motion.moves for solid in scene_of(seed, (64, 64, 9)).solids] for seed in range(20)]
    assert all(1 <= sum(moves) <= 2 for moves in moving)
    assert not any(solid.motion.moves for seed in range(20) for solid in scene_of(seed, (64, 64, 1)).solids)


def test_everything_stands_on_the_ground() -> None:
    for seed in range(20):
        for solid in scene_of(seed, (256, 256, 5)).with_role("subject", "prop", "patch"):
            points = mesh(solid.kind).vertices_V3 * solid.scale_m @ matrix_33(solid.motion.orientation).T
            lowest_m = float(points[:, 2].min()) + solid.motion.location_m[2]
            assert lowest_m >= -1e-6
            if solid.kind != "plane":
                assert lowest_m == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("law", [AXIS.default_law, UnitLaw(neutral=5000, ratio=1 / 2), UnitLaw(neutral=4000, ratio=1 / 2)])
def test_white_is_never_clipped_and_black_never_crushed(law: UnitLaw) -> None:
    for seed in range(20):
        scene = scene_of(seed, (256, 256, 1), {"temperature": law})
        greys = [solid.material.albedo for solid in scene.with_role("patch")]
        assert all(grey == (grey[0],) * 3 for grey in greys)
        strength = scene.light.strength
        for control in (-1.0, 0.0, 1.0):
            white = max(grey[0] for grey in greys) * strength * neutral_rgb(law.value(control))
            assert white.max() < 0.95
        assert max(grey[0] for grey in greys) * strength > 0.3  # and the picture is not dark
        assert min(grey[0] for grey in greys) * strength * scene.light.ambient > 1 / 255


def test_no_colour_imitates_a_neutral_under_a_light_of_the_range() -> None:
    kelvins = [AXIS.default_law.value(step / 4) for step in range(-4, 5)]
    for seed in range(20):
        scene = scene_of(seed, (128, 128, 1))
        for solid in scene.with_role("subject", "prop", "ground"):
            lit = [part * scene.light.strength for part in solid.material.albedo]
            assert not imitates_neutral(lit, kelvins), solid.material.color_name
        assert not imitates_neutral(scene.background.bottom, kelvins)


def test_content_depends_on_the_seed_alone() -> None:
    assert scene_of(5, (128, 128, 5)) == scene_of(5, (128, 128, 5))
    assert scene_of(5, (128, 128, 5)) != scene_of(6, (128, 128, 5))


def test_it_is_drawn_for_other_axes_too() -> None:
    for laws in ({}, {"aperture": UnitLaw(neutral=5.6, ratio=0.25)}, {"shutter": UnitLaw(neutral=1 / 80, ratio=5)}):
        scene = scene_of(1, (128, 128, 5), laws)
        assert scene.light.strength == pytest.approx(1.0)


def test_variety() -> None:
    scenes = [scene_of(seed, (128, 128, 5)) for seed in range(60)]
    grounds = [scene.with_role("ground")[0].material.color_name for scene in scenes]
    assert 0.3 < np.mean([name in ("white", "grey") for name in grounds]) < 0.85
    assert len({solid.kind for scene in scenes for solid in scene.with_role("subject", "prop")}) >= 9
    assert len({scene.background.name for scene in scenes}) >= 5
    spots = np.array([center_px(scene.with_role("patch")[0], scene.camera, scene.shot, 0.0) for scene in scenes])
    assert spots.std(axis=0).min() > 12


def test_a_picture_too_small_for_its_rules_is_refused_in_one_line() -> None:
    with pytest.raises(SceneError, match="tabletop") as caught:
        scene_of(0, (8, 8, 1))
    assert "\n" not in str(caught.value)
