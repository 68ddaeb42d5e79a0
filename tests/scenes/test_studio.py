"""The studio family: what each axis shows is kept apart, and every axis is read blind while all three act."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from blender_child import run_in_blender
from scipy.stats import spearmanr

from generator.media.video import decode, encode
from generator.recipe.load import load_recipe
from generator.recipe.plan import make_plan
from generator.recipe.render_settings import RenderSettings
from generator.recipe.sampling import control_values
from scenes.axes import AXES, UnitLaw
from scenes.axes.aperture.axis import expected_discs
from scenes.axes.temperature.probe import imitates_neutral
from scenes.errors import SceneError
from scenes.families import FAMILIES, draw_scene
from scenes.families.rules import depth_m, swept_bounds_px
from scenes.families.studio import STUDIO, all_apart, least_lights, swept_capsule
from scenes.palette import to_bytes
from scenes.spec import Optics, SceneSpec, Shot
from scenes.white import adaptation_33, neutral_rgb

LAWS = {name: axis.default_law for name, axis in AXES.items()}
SHOTS = [(512, 512, 9), (256, 256, 5), (64, 64, 1), (64, 64, 9), (64, 64, 13), (832, 480, 13), (480, 832, 5), (128, 128, 1)]
FPS = 16


def scene_of(seed: int, shot: tuple[int, int, int], laws: dict[str, UnitLaw] | None = None) -> SceneSpec:
    width, height, frames = shot
    made = Shot(width=width, height=height, fps=FPS, frames=frames)
    return draw_scene(STUDIO, np.random.default_rng(seed), made, LAWS if laws is None else laws)


@pytest.mark.parametrize("shot", SHOTS)
def test_every_seed_gives_a_scene_in_which_nothing_touches(shot: tuple[int, int, int]) -> None:
    for seed in range(25):
        scene = scene_of(seed, shot)
        movers, card, lights = (scene.with_role(role) for role in ("subject", "patch", "highlight"))
        assert 1 <= len(movers) <= 2 and len(card) == 4 and least_lights(scene.shot) <= len(lights) <= 8
        assert len(scene.solids) == len(movers) + len(card) + len(lights)
        boxes = [swept_bounds_px(solid, scene.camera, scene.shot, scene.shot.times_s) for solid in card]
        for mover in movers:
            path = swept_capsule(mover, scene, LAWS)
            for disc in expected_discs(scene, 1.4):
                away_px = _from_path(path.start_2, path.stop_2, (disc.x_px, disc.y_px))
                assert away_px > path.radius_px + (disc.outline_px + disc.disc_px) / 2
            for x0, y0, x1, y1 in boxes:
                assert _from_path(path.start_2, path.stop_2, ((x0 + x1) / 2, (y0 + y1) / 2)) > path.radius_px + (x1 - x0) / 2


def _from_path(start_2: np.ndarray, stop_2: np.ndarray, place: tuple[float, float]) -> float:
    """Return the distance (pixels) of a place from the straight path between two others."""
    along_2 = stop_2 - start_2
    share = np.clip((np.asarray(place) - start_2) @ along_2 / max(along_2 @ along_2, 1e-9), 0.0, 1.0)
    return math.dist(place, start_2 + share * along_2)


@pytest.mark.parametrize("shot", [(512, 512, 9), (64, 64, 5)])
def test_each_axis_has_content_that_shows_no_other(shot: tuple[int, int, int]) -> None:
    for seed in range(25):
        scene = scene_of(seed, shot)
        focus_m = scene.camera.focus_distance_m
        for solid in scene.solids:
            in_focus = depth_m(solid, scene.camera, 0.0) == pytest.approx(focus_m, rel=1e-6)
            assert in_focus == (solid.role != "highlight")
            assert solid.motion.moves == (solid.role == "subject")
        if min(shot[:2]) >= 480:
            assert max(disc.disc_px for disc in expected_discs(scene, 22.4)) >= 2.0


@pytest.mark.parametrize("law", [AXES["temperature"].default_law, UnitLaw(neutral=5000, ratio=1 / 2)])
def test_no_cast_clips_or_hides_anything_or_makes_a_second_neutral(law: UnitLaw) -> None:
    laws = {**LAWS, "temperature": law}
    kelvins = [law.value(step / 4) for step in range(-4, 5)]
    for seed in range(20):
        scene = scene_of(seed, (256, 256, 5), laws)
        strength = scene.light.strength
        brightest = [max(solid.material.albedo) * strength for solid in scene.with_role("patch")]
        brightest += [solid.material.emission for solid in scene.with_role("highlight")]
        assert max(brightest) * max(neutral_rgb(kelvin).max() for kelvin in kelvins) < 0.95
        assert max(brightest) > 0.2
        for solid in scene.with_role("subject"):
            lit = [part * strength for part in solid.material.albedo]
            assert not imitates_neutral(lit, kelvins), solid.material.color_name
            assert max((adaptation_33(kelvin) @ lit).max() for kelvin in kelvins) < 1.0


def test_content_depends_on_the_seed_alone_and_varies() -> None:
    assert scene_of(5, (128, 128, 5)) == scene_of(5, (128, 128, 5))
    scenes = [scene_of(seed, (256, 256, 1)) for seed in range(40)]
    subjects = [solid for scene in scenes for solid in scene.with_role("subject")]
    assert len({solid.kind for solid in subjects}) >= 7
    assert len({solid.material.color_name for solid in subjects}) >= 4
    assert len({scene.background.name for scene in scenes}) >= 2
    assert len(subjects) > len(scenes)  # two cross it now and then


@pytest.mark.parametrize("axes", [(), ("shutter",), ("aperture",), ("temperature",), ("shutter", "temperature")])
def test_it_is_drawn_for_fewer_axes_too(axes: tuple[str, ...]) -> None:
    scene = scene_of(1, (128, 128, 5), {axis: LAWS[axis] for axis in axes})
    assert scene.with_role("subject") and scene.with_role("patch") and scene.with_role("highlight")


def test_the_rule_sees_what_touches() -> None:
    scene = scene_of(3, (256, 256, 5))
    assert all_apart()(scene, LAWS) is None
    *others, light = scene.solids
    in_the_way = light.motion.model_copy(update={"location_m": scene.solids[0].motion.location_m})
    touching = scene.model_copy(update={"solids": (*others, light.model_copy(update={"motion": in_the_way}))})
    assert all_apart()(touching, LAWS) is not None


def test_a_picture_too_small_for_it_is_refused_in_one_line() -> None:
    with pytest.raises(SceneError, match="studio") as caught:
        scene_of(0, (16, 16, 1))
    assert "\n" not in str(caught.value)


def test_the_shipped_recipe_is_a_pyramid_of_three_axes() -> None:
    plan = make_plan(load_recipe(Path(__file__).parents[2] / "examples" / "all.toml"))
    assert len(plan.clips) == 100 and {clip.family for clip in plan.clips} == {"studio"}
    assert all(set(clip.values) == set(AXES) == FAMILIES["studio"].shows for clip in plan.clips)
    nine = [clip for clip in plan.clips if clip.scene_id == plan.scenes[0].scene_id]
    assert len(nine) == 9
    for axis in AXES:
        assert sorted(int((clip.controls[axis] + 1) / 2 * 9) for clip in nine) == list(range(9))


def film(scene: SceneSpec, points: list[dict[str, float]]) -> list[bytes]:
    """Render, cast, encode; one file per point of physical values. Runs where Blender is."""
    from generator.render.scene_renderer import SceneRenderer

    renderer = SceneRenderer(scene, RenderSettings(), 1)
    files = []
    for values in points:
        linear_THW3 = renderer.frames(Optics(exposure_s=values["shutter"], f_number=values["aperture"]))
        files.append(encode(to_bytes(AXES["temperature"].apply_image(linear_THW3, values["temperature"])), FPS, 12, "medium"))
    return files


@pytest.mark.parametrize(("seed", "frames"), [(4, 9), (2, 5)])
def test_every_axis_is_read_while_the_others_act(seed: int, frames: int) -> None:
    scene = scene_of(seed, (192, 192, frames))
    drawn = control_values("pyramid", list(AXES), seed=seed, family="studio", layer=7, frames=frames, scene=0)
    points = [{axis: LAWS[axis].value(control) for axis, control in controls.items()} for controls in drawn]
    clips = [decode(file) for file in run_in_blender(film, scene, points)]
    for name, axis in AXES.items():
        labels, readings, errors = [], [], []
        for values, clip in zip(points, clips, strict=True):
            optics = Optics(exposure_s=values["shutter"], f_number=values["aperture"])
            found = axis.measure(axis.probe(clip, FPS), scene, optics, values[name])
            if found.judged and found.measured is not None and found.error is not None:
                labels.append(found.labelled)
                readings.append(found.measured)
                errors.append(abs(found.error))
        assert len(errors) >= 4, name
        assert np.median(errors) <= axis.tolerance, name
        assert spearmanr(labels, readings)[0] == pytest.approx(1.0), name


def test_a_sweep_of_one_axis_leaves_the_other_readings_where_they_are() -> None:
    scene = scene_of(6, (192, 192, 5))
    neutral = {axis: law.neutral for axis, law in LAWS.items()}
    swept = [(axis, {**neutral, axis: LAWS[axis].value(control)}) for axis in AXES for control in (-0.8, 0.9)]
    reference, *clips = (decode(file) for file in run_in_blender(film, scene, [neutral, *(values for _, values in swept)]))
    for (axis, values), clip in zip(swept, clips, strict=True):
        for other in AXES:
            read = AXES[other].relative(clip, reference, FPS)
            truth = AXES[other].distance(values[other], neutral[other])
            assert read is not None, (axis, other)
            if other == axis:
                assert 0.8 < read / truth < 1.2, axis
            else:
                assert abs(read) <= AXES[other].tolerance, (axis, other)


def test_a_still_shows_the_blur_of_what_moves_and_not_that_of_the_lights() -> None:
    shutter = AXES["shutter"]
    scene = scene_of(31, (192, 192, 1))
    neutral = {axis: law.neutral for axis, law in LAWS.items()}
    wide = {**neutral, "aperture": LAWS["aperture"].value(0.8)}
    still, reference = (decode(file) for file in run_in_blender(film, scene, [wide, neutral]))
    reading = shutter.probe(still, FPS)
    discs = expected_discs(scene, wide["aperture"])
    assert max(disc.disc_px for disc in discs) > 8
    assert reading.detections
    for detection in reading.detections:
        assert min(math.dist((detection.x_px, detection.y_px), (disc.x_px, disc.y_px)) for disc in discs) > 8
    found = shutter.measure(reading, scene, Optics(exposure_s=wide["shutter"], f_number=wide["aperture"]), wide["shutter"])
    assert found.judged and found.error is not None and abs(found.error) < 2 * shutter.tolerance
    apart = shutter.relative(still, reference, FPS)
    assert apart is not None and abs(apart) < shutter.tolerance
