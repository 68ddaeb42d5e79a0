"""The plan: every scene and clip a recipe implies, pure and deterministic, equal byte for byte on any machine.

Floats are rounded to nine significant digits when a plan is made, because the last bits of transcendental functions differ
between maths libraries; the rounded numbers are the ones that are rendered.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from generator.recipe import Pyramid, Recipe
from generator.sampling import CAPTION, CONTENT, clips_per_scene, control_values, stream
from scenes.axes import AXES
from scenes.captions import caption
from scenes.families import FAMILIES, Family, draw_scene
from scenes.families.blend import blend_family
from scenes.spec import Optics, SceneSpec, Shot, Spec

PLAN_FORMAT = 1
SIGNIFICANT_DIGITS = 9


class ClipPlan(Spec):
    """One clip: a scene at one value per axis. `controls` and `values` are keyed by axis name."""

    clip_id: str
    scene_id: str
    pyramid: int
    layer: int
    scene: int
    index: int
    frames: int
    family: str
    axes: tuple[str, ...]
    controls: dict[str, float]
    values: dict[str, float]
    caption: str

    @property
    def optics(self) -> Optics:
        """The camera settings of this clip; what no axis controls is switched off."""
        optics = Optics()
        for axis, value in self.values.items():
            optics = AXES[axis].apply_optics(optics, value)
        return optics


class ScenePlan(Spec):
    """One scene: its content, and the ids of its clips in order of index."""

    scene_id: str
    spec: SceneSpec
    clip_ids: tuple[str, ...]


class Plan(Spec):
    """Every scene and clip of a recipe, in order."""

    format: int = PLAN_FORMAT
    name: str
    seed: int
    recipe: Recipe
    scenes: tuple[ScenePlan, ...]
    clips: tuple[ClipPlan, ...]

    def to_json(self) -> str:
        """Return the canonical text of the plan: equal plans have equal bytes."""
        return canonical_json(self.model_dump(mode="json"))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read a plan written by `to_json`."""
        return cls.model_validate_json(text)

    @cached_property
    def digest(self) -> str:
        """The sha256 of the canonical text."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @cached_property
    def scene_by_id(self) -> dict[str, ScenePlan]:
        """Scenes by id."""
        return {scene.scene_id: scene for scene in self.scenes}

    @cached_property
    def clip_by_id(self) -> dict[str, ClipPlan]:
        """Clips by id."""
        return {clip.clip_id: clip for clip in self.clips}

    def media_key(self, clip: ClipPlan) -> str:
        """Return the sha256 of everything the clip's frames and bytes depend on, but for the Blender version.

        Two clips with equal keys, of any recipe, have equal frames; captions and tolerances are no part of it.
        """
        entry = {
            "format": self.format,
            "spec": self.scene_by_id[clip.scene_id].spec.model_dump(mode="json"),
            "values": clip.values,
            "render": self.recipe.render.model_dump(mode="json"),
            "video": self.recipe.video.model_dump(mode="json"),
        }
        return hashlib.sha256(canonical_json(entry).encode()).hexdigest()


def make_plan(recipe: Recipe) -> Plan:
    """Return the plan of a recipe; raises SceneError when a family cannot meet its rules."""
    scenes: list[ScenePlan] = []
    clips: list[ClipPlan] = []
    for position, pyramid in enumerate(recipe.pyramid):
        for layer, frames, number, family in _scene_keys(pyramid):
            scene, its_clips = _plan_scene(recipe, position, layer, frames, number, family)
            scenes.append(scene)
            clips.extend(its_clips)
    return Plan(name=recipe.name, seed=recipe.seed, recipe=recipe, scenes=tuple(scenes), clips=tuple(clips))


def layer_counts(recipe: Recipe) -> list[tuple[int, int, int, int, int]]:
    """Return rows (pyramid, layer, frames, scenes, clips), without drawing any scene."""
    return [
        (
            position,
            layer,
            frames,
            pyramid.scenes_per_layer,
            pyramid.scenes_per_layer * clips_per_scene(pyramid.sampling, layer, len(pyramid.axes)),
        )
        for position, pyramid in enumerate(recipe.pyramid)
        for layer in pyramid.layers
        for frames in pyramid.frames
    ]


def canonical_json(tree: Any) -> str:
    """Return JSON with sorted keys, no spaces and floats at nine significant digits."""
    return json.dumps(rounded(tree), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def rounded(tree: Any) -> Any:
    """Return a JSON tree with every float at nine significant digits, and no negative zero."""
    if isinstance(tree, float):
        return float(f"{tree:.{SIGNIFICANT_DIGITS}g}") + 0.0
    if isinstance(tree, dict):
        return {key: rounded(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [rounded(value) for value in tree]
    return tree


def _scene_keys(pyramid: Pyramid) -> Iterator[tuple[int, int, int, str]]:
    for layer in pyramid.layers:
        for frames in pyramid.frames:
            for number in range(pyramid.scenes_per_layer):
                yield layer, frames, number, pyramid.family[number % len(pyramid.family)]


_SPEC = TypeAdapter(SceneSpec)


def _plan_scene(
    recipe: Recipe, position: int, layer: int, frames: int, number: int, family: str
) -> tuple[ScenePlan, list[ClipPlan]]:
    pyramid = recipe.pyramid[position]
    shot = Shot(width=recipe.video.width, height=recipe.video.height, fps=recipe.video.fps, frames=frames)
    laws = {axis: recipe.law(axis) for axis in pyramid.axes}
    key = (layer, frames, number)
    drawn = draw_scene(_family(recipe, family), stream(recipe.seed, CONTENT, family, *key), shot, laws)
    spec = _SPEC.validate_python(rounded(drawn.model_dump(mode="json")))
    scene_id = f"{family}-s{recipe.seed}-n{layer}-f{frames}-{number:04d}"
    controls = control_values(
        pyramid.sampling, pyramid.axes, seed=recipe.seed, family=family, layer=layer, frames=frames, scene=number
    )
    clips = []
    for index, drawn_controls in enumerate(controls):
        control = {axis: rounded(value) for axis, value in drawn_controls.items()}
        effect = _effect_words(control) if recipe.captions.mention_effect else None
        clips.append(
            ClipPlan(
                clip_id=f"{scene_id}-{index}",
                scene_id=scene_id,
                pyramid=position,
                layer=layer,
                scene=number,
                index=index,
                frames=frames,
                family=family,
                axes=pyramid.axes,
                controls=control,
                values={axis: rounded(laws[axis].value(value)) for axis, value in control.items()},
                caption=_caption(recipe, spec, stream(recipe.seed, CAPTION, family, *key), effect),
            )
        )
    return ScenePlan(scene_id=scene_id, spec=spec, clip_ids=tuple(clip.clip_id for clip in clips)), clips


def _family(recipe: Recipe, name: str) -> Family:
    marks = recipe.scene.marks if recipe.scene is not None else None
    return blend_family(marks) if name == "blend" and marks is not None else FAMILIES[name]


def _caption(recipe: Recipe, spec: SceneSpec, rng: np.random.Generator, effect: str | None) -> str:
    """Return the words for a scene: drawn from its spec or, for a scene of one's own, those it was marked with."""
    if recipe.scene is None or recipe.scene.marks is None or spec.blend is None:
        return caption(spec, rng, effect=effect)
    words = recipe.scene.marks.caption.rstrip(".")
    return f"{words}, {effect}." if effect else f"{words}."


def _effect_words(controls: dict[str, float]) -> str | None:
    # Below a quarter of the range the effect is too near neutral for words to be true.
    words = [AXES[axis].effect_words[int(control > 0)] for axis, control in controls.items() if abs(control) >= 0.25]
    return " and ".join(words) or None
