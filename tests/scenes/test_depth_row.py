"""The `depth_row` family: what every scene promises, and its blur discs found blind in real renders."""

from __future__ import annotations

import math

import numpy as np
import pytest
from blender_child import run_in_blender
from scipy.stats import spearmanr

from generator.media.video import decode, encode
from generator.recipe.render_settings import RenderSettings
from scenes.axes.aperture.axis import Aperture, expected_discs
from scenes.control_axis import UnitLaw
from scenes.errors import SceneError
from scenes.families.base import draw_scene
from scenes.families.depth_row import DEPTH_ROW, least_lights, widest_f_number
from scenes.families.rules import depth_m
from scenes.palette import to_bytes
from scenes.spec import Optics, SceneSpec, Shot

APERTURE = Aperture()
LAWS = {"aperture": APERTURE.default_law}
SIZES = ((512, 512), (832, 480), (480, 832), (256, 256), (128, 128), (64, 64))


def drawn(seed: int, width: int, height: int, frames: int, laws=LAWS) -> SceneSpec:
    return draw_scene(DEPTH_ROW, np.random.default_rng(seed), Shot(width=width, height=height, fps=16, frames=frames), laws)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_every_scene_keeps_its_promises(width, height):
    side = min(width, height)
    for seed in range(200 if side in (64, 512) else 50):
        scene = drawn(seed, width, height, (1, 5, 9, 13)[seed % 4])
        wide, narrow = (expected_discs(scene, APERTURE.default_law.value(control)) for control in (1.0, -1.0))
        assert len(wide) >= least_lights(scene.shot)
        assert all(0.065 * side <= disc.disc_px <= 0.11 * side < 2 * disc.outline_px for disc in wide)
        assert all(disc.disc_px < disc.outline_px for disc in wide)  # the rim, not the outline, is the lens's
        if side >= 480:
            assert max(disc.disc_px for disc in narrow) >= 2.0
        depths = sorted(depth_m(solid, scene.camera, 0.0) for solid in scene.with_role("subject", "prop"))
        assert len(depths) == 3 and depths[0] < 0.95 * depths[1] and depths[1] < 0.95 * depths[2]
        (subject,) = scene.with_role("subject")
        assert depth_m(subject, scene.camera, 0.0) == pytest.approx(scene.camera.focus_distance_m, rel=1e-6)
        assert subject.motion.moves and not any(solid.motion.moves for solid in scene.solids if solid is not subject)
        assert len({solid.name for solid in scene.solids}) == len(scene.solids)


def test_scenes_are_pure_and_varied():
    first, again = drawn(7, 512, 512, 9), drawn(7, 512, 512, 9)
    assert first.model_dump_json() == again.model_dump_json()
    scenes = [drawn(seed, 128, 128, 1) for seed in range(60)]
    assert len({solid.kind for scene in scenes for solid in scene.with_role("subject")}) >= 6
    assert len({solid.material.color_name for scene in scenes for solid in scene.with_role("prop")}) >= 8
    assert len({scene.background.name for scene in scenes}) >= 3
    nearest = [min(depth_m(s, scene.camera, 0.0) for s in scene.with_role("subject", "prop")) for scene in scenes]
    in_focus = [np.isclose(near, scene.camera.focus_distance_m) for near, scene in zip(nearest, scenes, strict=True)]
    assert 5 < sum(in_focus) < 40


@pytest.mark.parametrize("laws", [{}, {"temperature": UnitLaw(neutral=6500, ratio=1 / 3.25)}])
def test_it_draws_for_other_axes_too(laws):
    scene = drawn(1, 256, 256, 5, laws)
    assert len(scene.with_role("highlight")) >= 6


@pytest.mark.parametrize(("neutral", "ratio"), [(4.0, 1 / 2), (8.0, 1 / 8), (5.6, 4.0)])
def test_discs_follow_the_recipes_own_law(neutral, ratio):
    laws = {"aperture": UnitLaw(neutral=neutral, ratio=ratio)}
    scene = drawn(3, 512, 512, 1, laws)
    discs = expected_discs(scene, widest_f_number(laws))
    assert all(30 < disc.disc_px < 45 for disc in discs)


def test_a_picture_too_small_for_it_fails_loudly():
    with pytest.raises(SceneError, match="depth_row"):
        drawn(0, 16, 16, 1)


def film(scene: SceneSpec, f_numbers: tuple[float, ...]) -> list[bytes]:
    """Render, encode, return one file per f-number; runs where Blender is."""
    from generator.render.scene_renderer import SceneRenderer

    renderer = SceneRenderer(scene, RenderSettings(), 1)
    return [encode(to_bytes(renderer.frames(Optics(f_number=f))), 16, 12, "medium") for f in f_numbers]


@pytest.mark.parametrize(("seed", "frames"), [(21, 5), (22, 1)])
def test_renders_show_the_discs_that_the_thin_lens_predicts(seed, frames):
    scene = drawn(seed, 160, 160, frames)
    law = APERTURE.default_law
    controls = (-0.1, 0.05, 0.2, 0.4, 0.6, 0.8, 1.0)
    files = run_in_blender(film, scene, tuple(law.value(control) for control in (*controls, 0.0)))
    *clips, reference = [decode(file) for file in files]
    measured, relative = [], []
    for control, clip in zip(controls, clips, strict=True):
        value = law.value(control)
        found = APERTURE.measure(APERTURE.probe(clip, 16), scene, Optics(f_number=value), value)
        assert found.judged and found.error is not None and found.measured is not None
        assert abs(found.error) < 0.3
        measured.append((value, found.measured, found.error))
        stops = APERTURE.relative(clip, reference, 16)
        assert stops is not None
        relative.append(abs(stops - 4 * control))
    values, readings, errors = zip(*measured, strict=True)
    assert np.median(np.abs(errors)) < 0.15
    assert np.median(relative) < 0.25
    assert spearmanr(values, readings)[0] == 1.0
    assert all(math.isfinite(reading) for reading in readings)
