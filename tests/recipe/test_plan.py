"""Laws 1 and 2: a plan is pure, keyed by identity, and content is independent of control."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.building.plan_check import concerns, judged_clips
from generator.recipe.load import parse_recipe
from generator.recipe.plan import Plan, canonical_json, make_plan, rounded
from scenes.axes import AXES
from scenes.families import FAMILIES

RECIPE = """
name = "laws"
seed = 5
[video]
width = 64
height = 64
[[pyramid]]
axes = ["shutter"]
family = "flyby"
layers = [5, 3, 1]
scenes_per_layer = 2
frames = [1, 5]
[[pyramid]]
axes = ["temperature"]
family = "tabletop"
layers = [3]
scenes_per_layer = 1
frames = [5]
"""


def plan_of(*overrides: str) -> Plan:
    return make_plan(parse_recipe(RECIPE, source="laws.toml", overrides=overrides))


def test_the_same_recipe_gives_the_same_bytes_in_another_process_with_another_hash_seed() -> None:
    code = (
        "import sys; from generator.recipe.plan import make_plan; from generator.recipe.load import parse_recipe;"
        "sys.stdout.write(make_plan(parse_recipe(sys.stdin.read(), source='laws.toml')).digest)"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            input=RECIPE,
            text=True,
            check=True,
            capture_output=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert digests == {plan_of().digest}


def test_the_plan_survives_its_own_text() -> None:
    plan = plan_of()
    assert Plan.from_json(plan.to_json()).to_json() == plan.to_json()


def test_counts_are_those_of_the_pyramid() -> None:
    plan = plan_of()
    assert len(plan.scenes) == 3 * 2 * 2 + 1
    assert len(plan.clips) == (5 + 3 + 1) * 2 * 2 + 3
    assert len({clip.clip_id for clip in plan.clips}) == len(plan.clips)


@pytest.mark.parametrize(
    "change",
    ["pyramid.0.layers=[7,5,3,1]", "pyramid.0.layers=[1,3,5]", "pyramid.0.scenes_per_layer=3", "pyramid.0.frames=[1,5,9]"],
)
def test_growing_or_reordering_a_pyramid_changes_no_other_clip(change: str) -> None:
    before, after = plan_of(), plan_of(change)
    assert set(before.clip_by_id) <= set(after.clip_by_id)
    for clip_id, clip in before.clip_by_id.items():
        assert after.clip_by_id[clip_id] == clip
        assert after.media_key(after.clip_by_id[clip_id]) == before.media_key(clip)


def test_an_anchor_adds_one_neutral_clip_to_a_scene_and_changes_no_other() -> None:
    before, after = plan_of(), plan_of("pyramid.0.anchor=true")
    added = [clip for clip in after.clips if clip.clip_id not in before.clip_by_id]
    assert [clip for clip in after.clips if clip.clip_id in before.clip_by_id] == list(before.clips)
    assert {clip.scene_id for clip in added} == {scene.scene_id for scene in before.scenes if scene.spec.family == "flyby"}
    for clip in added:
        assert clip.controls == {"shutter": 0.0} and clip.values == {"shutter": after.recipe.law("shutter").neutral}
    assert len(added) == len({clip.scene_id for clip in added})
    assert [after.media_key(after.clip_by_id[clip.clip_id]) for clip in before.clips] == [key for _, key in before.media_keys()]


@pytest.mark.parametrize(("sampling", "layer", "added"), [("even", 3, 0), ("even", 4, 1), ("grid", 5, 0), ("uniform", 3, 1)])
def test_a_scene_that_draws_its_neutral_clip_anyway_gets_no_second_one(sampling: str, layer: int, added: int) -> None:
    words = (f"pyramid.0.sampling={sampling}", f"pyramid.0.layers=[{layer}]")
    before, after = plan_of(*words), plan_of(*words, "pyramid.0.anchor=true")
    assert len(after.clips) - len(before.clips) == added * sum(scene.spec.family == "flyby" for scene in before.scenes)
    neutral = [clip for clip in after.clips if clip.family == "flyby" and not any(clip.controls.values())]
    assert len(neutral) == sum(scene.spec.family == "flyby" for scene in after.scenes)


def test_a_caption_in_two_parts_is_both_of_them_and_changes_no_frame() -> None:
    before, after = plan_of(), plan_of("captions.two_parts=true")
    assert [key for _, key in before.media_keys()] == [key for _, key in after.media_keys()]
    for clip in after.clips:
        parts = after.caption_parts(clip)
        assert parts is not None and clip.caption == f"{parts.content} {parts.motion}"
        assert before.caption_parts(before.clip_by_id[clip.clip_id]) is None
        assert after.caption_parts(clip.model_copy(update={"caption": "Edited."})) is None


def test_another_seed_changes_content_and_values() -> None:
    before, after = plan_of(), plan_of("seed=6")
    assert not set(before.clip_by_id) & set(after.clip_by_id)
    assert before.scenes[0].spec != after.scenes[0].spec
    assert before.clips[0].controls != after.clips[0].controls


def test_captions_and_tolerances_do_not_change_the_media_key_but_rendering_does() -> None:
    def keys(plan: Plan) -> list[str]:
        return [plan.media_key(clip) for clip in plan.clips]

    assert keys(plan_of()) == keys(plan_of("verify.rank_correlation=0.5")) == keys(plan_of("captions.mention_effect=true"))
    for change in ("render.samples=8", "video.crf=20", "render.fidelity=lit"):
        assert not set(keys(plan_of())) & set(keys(plan_of(change)))


def test_within_a_scene_nothing_but_the_control_differs() -> None:
    plan = plan_of()
    for scene in plan.scenes:
        clips = [plan.clip_by_id[clip_id] for clip_id in scene.clip_ids]
        assert len({clip.caption for clip in clips}) == 1
        assert len({tuple(clip.controls.values()) for clip in clips}) == len(clips)


OTHER_LAWS = {
    "shutter": {"neutral": "1/200", "ratio": 2.5},
    "aperture": {"neutral": "f/4", "ratio": 0.5},
    "temperature": {"neutral": "5000K", "ratio": 0.6},
}


def family_plan(family: str, laws: str = "", fps: int = 16) -> Plan:
    axes = sorted(FAMILIES[family].shows)
    lines = [
        'name = "laws"\nseed = 9',
        f"[video]\nwidth = 128\nheight = 128\nfps = {fps}\n{laws}",
        f'[[pyramid]]\naxes = {axes}\nfamily = "{family}"\nlayers = [3]\nscenes_per_layer = 3\nframes = [5]',
    ]
    return make_plan(parse_recipe("\n".join(lines), source="laws.toml"))


def in_toml(family: str, table: str = "") -> str:
    laws = ((axis, OTHER_LAWS[axis]) for axis in sorted(FAMILIES[family].shows))
    return "\n".join(f'[axes.{axis}{table}]\nneutral = "{law["neutral"]}"\nratio = {law["ratio"]}' for axis, law in laws)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "blend"])
def test_an_axis_of_another_range_shows_the_same_scenes_with_the_same_captions(family: str) -> None:
    """Law 2 across recipes: an experiment with ranges differs in the range alone."""
    usual, other = family_plan(family), family_plan(family, in_toml(family))
    assert usual.scenes == other.scenes
    assert [clip.caption for clip in usual.clips] == [clip.caption for clip in other.clips]
    assert [clip.controls for clip in usual.clips] == [clip.controls for clip in other.clips]
    assert not {tuple(clip.values.values()) for clip in usual.clips} & {tuple(clip.values.values()) for clip in other.clips}
    assert (usual.format, other.format) == (1, 2)


@pytest.mark.parametrize("family", ["flyby", "depth_row"])
def test_a_layout_of_ones_own_draws_other_scenes_and_is_known_by_the_format(family: str) -> None:
    laid_out = family_plan(family, in_toml(family, ".layout"))
    assert [scene.spec for scene in laid_out.scenes] != [scene.spec for scene in family_plan(family).scenes]
    assert laid_out.format == 2
    assert Plan.from_json(laid_out.to_json()).to_json() == laid_out.to_json()


def test_at_more_frames_a_second_scenes_have_room_for_the_whole_frame_interval() -> None:
    fast = '[axes.shutter]\nneutral = "1/240"\nratio = {}'
    narrow, wide = (family_plan("flyby", fast.format(ratio), fps=48) for ratio in (2, 5))
    assert narrow.scenes == wide.scenes


def test_a_plan_says_what_its_laws_cannot_show() -> None:
    assert not list(concerns(plan_of()))
    turned, *others = concerns(family_plan("flyby", '[axes.shutter]\nneutral = "1/80"\nratio = 0.2'))
    assert "c = +1 is 1/400, the weaker" in turned and "write 5" in turned and not others
    (wide,) = concerns(family_plan("depth_row", '[axes.aperture]\nneutral = "f/2.8"'))
    assert "reaches f/0.7" in wide and "laid out for f/1.4" in wide and "layout = { neutral = 2.8, ratio = 0.25 }" in wide
    faint = family_plan("flyby", '[axes.shutter]\nneutral = "1/2000"\nratio = 2')
    (words,) = concerns(faint)
    assert judged_clips(faint) == {"shutter": (0, 9)} and "none of 9 clips" in words
    assert list(concerns(faint, judged_clips(faint))) == [words] and not list(concerns(faint, {"shutter": (9, 9)}))


def test_labels_obey_the_unit_law() -> None:
    plan = plan_of()
    for clip in plan.clips:
        for axis, control in clip.controls.items():
            assert -1 <= control <= 1
            assert clip.values[axis] == pytest.approx(plan.recipe.law(axis).value(control), rel=1e-8)


@given(control=st.floats(-1.5, 1.5), axis=st.sampled_from(sorted(AXES)))
def test_value_and_control_are_inverse(control: float, axis: str) -> None:
    law = AXES[axis].default_law
    assert law.control(law.value(control)) == pytest.approx(control, abs=1e-9)


@given(control=st.floats(-1.5, 1.5), axis=st.sampled_from(sorted(AXES)))
@settings(max_examples=200)
def test_what_is_formatted_is_parsed_back(control: float, axis: str) -> None:
    value = AXES[axis].default_law.value(control)
    assert abs(AXES[axis].distance(AXES[axis].parse(AXES[axis].format(value)), value)) < 2 * AXES[axis].tolerance


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_rounding_is_idempotent_and_has_no_negative_zero(value: float) -> None:
    assert rounded(rounded(value)) == rounded(value)
    assert not canonical_json(rounded(-0.0 * value)).startswith("-0")


def test_the_golden_plan() -> None:
    """A change of this digest changes every dataset that people build; make it on purpose and say so in the changelog."""
    golden = (Path(__file__).parent / "golden_plan.sha256").read_text().strip()
    assert hashlib.sha256(plan_of().to_json().encode()).hexdigest() == golden
