"""The world of the tiny backbone: what it holds, how it is spoken of, and the `textured` fidelity it is rendered at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from blender_child import run_in_blender

from generator.recipe.load import load_recipe
from generator.recipe.plan import make_plan
from generator.recipe.render_settings import RenderSettings
from generator.render.scene_renderer import SceneRenderer
from scenes.axes import AXES
from scenes.axes.aperture.axis import expected_discs
from scenes.camera import rotation_33
from scenes.errors import SceneError
from scenes.families import FAMILIES, draw_scene
from scenes.families.captions import caption
from scenes.families.rules import bounds_px, center_px, image_velocity_px_per_s
from scenes.families.world import Layout, depths, flight, table
from scenes.families.world_parts import LEANS_DEG
from scenes.motion import matrix_33
from scenes.palette import COLORS, delta_e
from scenes.primitives import spoken
from scenes.spec import Background, Camera, Light, Material, Motion, Optics, SceneSpec, Shot, Solid, Vec3

RECIPE = Path(__file__).parent.parent.parent / "examples" / "tiny_world.toml"
LAWS = {name: AXES[name].default_law for name in ("shutter", "aperture", "temperature")}
SCENES = 120
FRAME_COUNTS = (5, 9, 13)
EFFECT_WORDS = ("blur", "smear", "focus", "bokeh", "exposure", "shutter", "aperture", "warm", "cold", "kelvin", "tint", "sharp")
FACING = (math.sqrt(0.5), math.sqrt(0.5), 0.0, 0.0)  # turns a plane's +Z towards the camera


@cache
def world(frames: int) -> tuple[SceneSpec, ...]:
    shot = Shot(width=64, height=64, fps=16, frames=frames)
    return tuple(draw_scene(FAMILIES["world"], np.random.default_rng([5, index]), shot, LAWS) for index in range(SCENES))


def fastest_px(scene: SceneSpec) -> float:
    """Return the greatest speed of a thing, in pixels per frame: the smear of a whole frame interval's exposure."""
    middle_s = scene.shot.times_s[scene.shot.frames // 2]
    speeds = [image_velocity_px_per_s(thing, scene.camera, scene.shot, middle_s) for thing in scene.with_role("subject")]
    return max((math.hypot(*speed) for speed in speeds), default=0.0) / scene.shot.fps


@pytest.mark.parametrize("frames", FRAME_COUNTS)
def test_things_cross_fast_enough_to_smear_in_every_direction(frames: int) -> None:
    fast = [scene for scene in world(frames) if fastest_px(scene) >= 8.0]
    assert len(fast) > 0.2 * SCENES
    assert np.median([fastest_px(scene) for scene in fast]) > 9.0
    eighths = set()
    for scene in fast:
        thing = max(scene.with_role("subject"), key=lambda one: np.linalg.norm(one.motion.velocity_m_per_s))
        x, y = image_velocity_px_per_s(thing, scene.camera, scene.shot, 0.0)
        eighths.add(round(math.atan2(y, x) / (math.pi / 4)) % 8)
    assert eighths == set(range(8))


@pytest.mark.parametrize("frames", FRAME_COUNTS)
def test_lights_pool_over_discs_that_show_at_64_px(frames: int) -> None:
    discs = [max(disc.disc_px for disc in found) for scene in world(frames) if (found := expected_discs(scene, 1.4))]
    assert len(discs) > 0.1 * SCENES
    assert np.median(discs) > 6.0
    assert max(discs) > 9.0


@pytest.mark.parametrize("frames", FRAME_COUNTS)
def test_neutral_surfaces_are_there_for_the_cast_to_show_on(frames: int) -> None:
    floors = [ground.material.color_name for scene in world(frames) for ground in scene.with_role("ground")]
    assert sum(name in ("white", "grey") for name in floors) > 0.1 * SCENES
    assert any(scene.with_role("patch") for scene in world(frames))


@pytest.mark.parametrize("frames", FRAME_COUNTS)
def test_every_thing_is_seen_in_its_own_colour(frames: int) -> None:
    for scene in world(frames):
        things = scene.with_role("subject", "prop")
        assert things
        for thing in things:
            places = [center_px(thing, scene.camera, scene.shot, time_s) for time_s in scene.shot.times_s]
            assert sum(0 <= x <= 64 and 0 <= y <= 64 for x, y in places) >= frames / 3
            x0, y0, x1, y1 = bounds_px(thing, scene.camera, scene.shot, 0.0)
            assert max(x1 - x0, y1 - y0) <= 0.85 * 64
            assert thing.material.albedo == COLORS[thing.material.color_name]


def drawn(layout: Layout, shot: Shot, count: int) -> list[SceneSpec]:
    """Return scenes of a layout, less those that found no room."""
    scenes = []
    for seed in range(count):
        with suppress(SceneError):
            scenes.append(layout(np.random.default_rng(seed), shot, LAWS))
    return scenes


@pytest.mark.parametrize("layout", [flight, depths, table])
def test_layouts_of_its_own_have_distinct_colours_that_differ_from_what_is_behind(layout: Layout) -> None:
    scenes = drawn(layout, Shot(width=64, height=64, fps=16, frames=9), 30)
    assert len(scenes) > 15
    for scene in scenes:
        names = [thing.material.color_name for thing in scene.with_role("subject", "prop")]
        assert len(set(names)) == len(names)
        backdrop_23 = np.array([scene.background.bottom, scene.background.top]) / scene.light.strength
        behind = [*(ground.material.albedo for ground in scene.with_role("ground")), *backdrop_23.tolist()]
        assert all(delta_e(COLORS[name], other) > 20.0 for name in names for other in behind)


@pytest.mark.parametrize("frames", FRAME_COUNTS)
def test_captions_name_colour_and_kind_and_are_silent_on_effects_and_walls(frames: int) -> None:
    for index, scene in enumerate(world(frames)):
        words = caption(scene, np.random.default_rng(index)).lower()
        assert not [effect for effect in EFFECT_WORDS if effect in words.replace("from left", "")]
        assert "wall" not in words
        for thing in scene.with_role("subject", "prop"):
            stem = spoken[thing.kind].removesuffix("us")  # tori
            assert f"{thing.material.color_name} {stem}" in words


@pytest.mark.parametrize("frames", FRAME_COUNTS)
def test_every_size_is_there_and_a_caption_names_the_one_it_is(frames: int) -> None:
    named: dict[str, list[float]] = {"small": [], "medium": [], "large": []}
    for index, scene in enumerate(world(frames)):
        things = scene.with_role("subject", "prop")
        words = caption(scene, np.random.default_rng(index)).lower()
        middle_s = scene.shot.times_s[scene.shot.frames // 2]
        x0, y0, x1, y1 = bounds_px(things[0], scene.camera, scene.shot, middle_s)
        said = [size for size in named if f"{size} {things[0].material.color_name} {spoken[things[0].kind]}" in words]
        if len(things) == 1 and said:
            named[said[0]].append(max(x1 - x0, y1 - y0) / 64)
    assert min(len(shares) for shares in named.values()) >= 3
    assert max(named["small"]) < 0.28 <= min(named["medium"])
    assert max(named["medium"]) < 0.43 <= min(named["large"])


def test_its_own_things_are_plain_and_held_so_that_their_kind_shows() -> None:
    scenes = drawn(flight, Shot(width=64, height=64, fps=16, frames=9), 60)
    for solid in (solid for scene in scenes for solid in scene.solids):
        assert solid.material.texture == "none" and solid.material.finish == "matte"
    for scene in scenes:
        toward_3 = rotation_33(scene.camera)[:, 2]
        for solid in scene.solids:
            lean = abs(math.degrees(math.asin(float(matrix_33(solid.motion.orientation)[:, 2] @ toward_3))))
            low, high = LEANS_DEG[solid.kind]
            assert low - 1e-6 <= lean <= high + 1e-6, f"{solid.kind} leans {lean:.0f} degrees towards the viewer"


def test_scenes_depend_on_the_seed_alone_and_differ_between_seeds() -> None:
    shot = Shot(width=64, height=64, fps=16, frames=9)
    again = [draw_scene(FAMILIES["world"], np.random.default_rng([5, index]), shot, LAWS) for index in range(20)]
    assert tuple(again) == world(9)[:20]
    assert len({scene.model_dump_json() for scene in world(9)}) == SCENES


def test_the_recipe_spans_every_axis_and_growing_it_keeps_what_was_there() -> None:
    sizes = (["pyramid.0.scenes_per_layer=60", "pyramid.1.scenes_per_layer=4"], ["pyramid.0.scenes_per_layer=3"])
    large, small = (
        make_plan(load_recipe(RECIPE, [*size, "pyramid.1.scenes_per_layer=4"] if len(size) == 1 else size)) for size in sizes
    )
    assert (large.recipe.video.width, large.recipe.video.height, large.recipe.video.fps) == (64, 64, 16)
    assert {clip.frames for clip in large.clips} == {9, 13}
    for axis in LAWS:
        controls = np.array([clip.controls[axis] for clip in large.clips])
        assert controls.min() < -0.85
        assert controls.max() > 0.85
        assert abs(controls.mean()) < 0.25
    for clip in small.clips:
        assert large.media_key(large.clip_by_id[clip.clip_id]) == small.media_key(clip)


# --- the textured fidelity -------------------------------------------------------------------------------------------------

CAMERA = Camera(location_m=(0, -5, 3), target_m=(0, 0, 0), focal_length_mm=50, focus_distance_m=6)
SKY = Background(name="sky", bottom=(0.1, 0.1, 0.15), top=(0.3, 0.45, 0.7))
LIGHT = Light(direction=(0.2, 0.1, 1.0))


def thing(name: str, kind: str, place: Vec3, size: float, **material: object) -> Solid:
    surface = Material.model_validate({"color_name": "white", "albedo": (0.8, 0.8, 0.8), **material})
    return Solid(
        name=name, role="prop", kind=kind, scale_m=(size, size, size), material=surface, motion=Motion(location_m=place)
    )


def picture(solids: Sequence[Solid], fidelity: str) -> np.ndarray:
    """Render in this process; call it through `run_in_blender`."""
    shot = Shot(width=64, height=64, fps=16, frames=1)
    scene = SceneSpec(family="test", shot=shot, camera=CAMERA, light=LIGHT, background=SKY, solids=tuple(solids))
    settings = RenderSettings.model_validate({"fidelity": fidelity, "samples": 64, "adaptive_threshold": 0.0})
    return SceneRenderer(scene, settings, 1).frames(Optics())[0]


def test_textured_is_the_analytic_law_with_shadows_under_a_sky_that_lights_nothing() -> None:
    floor, ball = thing("floor", "plane", (0, 0, -1), 6.0), thing("ball", "sphere", (0, 0, -0.2), 1.2)
    flat, alone, made = (
        run_in_blender(picture, solids, fidelity)
        for solids, fidelity in (([floor], "flat"), ([floor], "textured"), ([floor, ball], "textured"))
    )
    assert alone == pytest.approx(flat, abs=1e-3), "without a neighbour nothing differs, the backdrop least of all"
    level = 0.8 * (LIGHT.ambient + (1 - LIGHT.ambient) / math.sqrt(0.04 + 0.01 + 1))
    on_floor = np.ptp(made, axis=-1) < 1e-3
    assert on_floor.mean() > 0.2
    assert np.median(made[on_floor]) == pytest.approx(level, rel=0.03), "a neighbour adds a little of its ambient share"
    darkest = np.percentile(made[on_floor], 1)
    assert 0.8 * LIGHT.ambient * 0.99 < darkest < 0.6 * level, "in shadow the ambient share is left"


def test_textured_shows_texture_and_highlight() -> None:
    plain, checker, noise, gloss = (
        run_in_blender(picture, [thing("ball", "sphere", (0, 0, 0), 2.0, **material)], "textured")
        for material in ({}, {"texture": "checker"}, {"texture": "noise"}, {"finish": "gloss"})
    )
    ball = np.s_[24:40, 24:40, 0]
    for textured in (checker, noise):
        share = textured[ball] / plain[ball]
        assert np.ptp(share) > 0.15
        assert share.max() < 1.03
    assert gloss[..., 0].max() > 1.1 * plain[..., 0].max()
