"""The plan: every scene and clip a recipe implies, pure and deterministic, equal byte for byte on any machine.

Floats are rounded to nine significant digits when a plan is made, because the last bits of transcendental functions differ
between maths libraries; the rounded numbers are the ones that are rendered.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, groupby
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from generator.recipe.sampling import CAPTION, CONTENT, clips_per_scene, control_values, stream
from generator.recipe.schema import Recipe
from scenes.axes import AXES
from scenes.families import FAMILIES, Family, draw_scene
from scenes.families.blend import blend_family
from scenes.families.captions import CaptionParts, caption, caption_parts
from scenes.spec import Optics, SceneSpec, Shot, Spec

# 2: an axis's own law has no part in its scenes. A recipe whose laws are those that its scenes are laid out for has the same
# plan either way, and keeps format 1; of others, plans of format 1 have scenes that were laid out for their own laws.
PLAN_FORMATS = (1, 2)
MEDIA_FORMAT = 1
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
    """Every scene and clip of a recipe, in order. `format` is one of `PLAN_FORMATS`."""

    format: int = PLAN_FORMATS[0]
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
        return self._media_digest(self._scene_text(clip.scene_id), clip.values)

    def media_keys(self) -> Iterator[tuple[ClipPlan, str]]:
        """Yield every clip with its media key; what the clips of a scene share is written out once."""
        for scene_id, clips in groupby(self.clips, key=lambda clip: clip.scene_id):
            scene = self._scene_text(scene_id)
            for clip in clips:
                yield clip, self._media_digest(scene, clip.values)

    def _scene_text(self, scene_id: str) -> str:
        return canonical_json(self.scene_by_id[scene_id].spec.model_dump(mode="json"))

    def _media_digest(self, scene: str, values: Mapping[str, float]) -> str:
        """Return the sha256 of the canonical text of format, render, spec, values and video, in this order."""
        render, video = self._settings_text
        text = f'{{"format":{MEDIA_FORMAT},"render":{render},"spec":{scene},"values":{canonical_json(values)},"video":{video}}}'
        return hashlib.sha256(text.encode()).hexdigest()

    def caption_parts(self, clip: ClipPlan) -> CaptionParts | None:
        """Return a clip's caption in two parts; None where it is not of two parts, or was edited since it was drawn."""
        if not self.recipe.captions.two_parts:
            return None
        spec = self.scene_by_id[clip.scene_id].spec
        effect = _effect_words(clip.controls) if self.recipe.captions.mention_effect else None
        key = (clip.layer, clip.frames, clip.scene)
        parts = caption_parts(spec, stream(self.recipe.seed, CAPTION, clip.family, *key), effect)
        return parts if parts.whole == clip.caption else None

    @cached_property
    def _settings_text(self) -> tuple[str, str]:
        return canonical_json(self.recipe.render.model_dump(mode="json")), canonical_json(
            self.recipe.video.model_dump(mode="json")
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneKey:
    """Which scene, before it is drawn: the number of its pyramid in the recipe, what its draws are keyed by, and its clips."""

    scene_id: str
    pyramid: int
    layer: int
    frames: int
    number: int
    family: str
    clips: int

    @property
    def clip_ids(self) -> tuple[str, ...]:
        """The ids of its clips, in order."""
        return tuple(f"{self.scene_id}-{index}" for index in range(self.clips))


class SceneKeys:
    """The keys of a recipe's scenes in the plan's order, made when they are asked for: a plan may be of a million clips."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._layers = layer_counts(recipe)
        self._ends = list(accumulate(scenes for _, _, _, scenes, _ in self._layers))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, position: int) -> SceneKey:
        if not 0 <= position < len(self):
            raise IndexError(position)
        place = bisect_right(self._ends, position)
        pyramid, layer, frames, scenes, clips = self._layers[place]
        number = position - self._ends[place] + scenes
        families = self._recipe.pyramid[pyramid].family
        family = families[number % len(families)]
        return SceneKey(
            scene_id=f"{family}-s{self._recipe.seed}-n{layer}-f{frames}-{number:04d}",
            pyramid=pyramid,
            layer=layer,
            frames=frames,
            number=number,
            family=family,
            clips=clips // scenes,
        )

    def __iter__(self) -> Iterator[SceneKey]:
        return (self[position] for position in range(len(self)))


def make_plan(recipe: Recipe) -> Plan:
    """Return the plan of a recipe; raises SceneError when a family cannot meet its rules."""
    return draw_plan(recipe, SceneKeys(recipe))


def draw_plan(recipe: Recipe, keys: Iterable[SceneKey]) -> Plan:
    """Return the part of a recipe's plan that has the scenes of these keys; raises SceneError as `make_plan` does."""
    scenes: list[ScenePlan] = []
    clips: list[ClipPlan] = []
    for key in keys:
        scene, its_clips = _plan_scene(recipe, key)
        scenes.append(scene)
        clips.extend(its_clips)
    return plan_of(recipe, scenes, clips)


def plan_of(recipe: Recipe, scenes: Iterable[ScenePlan], clips: Iterable[ClipPlan]) -> Plan:
    """Return the plan of a recipe that has these scenes and clips of it."""
    return Plan(
        format=plan_format(recipe),
        name=recipe.name,
        seed=recipe.seed,
        recipe=recipe,
        scenes=tuple(scenes),
        clips=tuple(clips),
    )


def plan_format(recipe: Recipe) -> int:
    """Return the format of a recipe's plan; see `PLAN_FORMATS`."""
    as_before = all(recipe.law(axis) == recipe.layout_law(axis) for axis in recipe.used_axes)
    return 1 if as_before and not any(law.layout for law in recipe.axes.values()) else 2


def layer_counts(recipe: Recipe) -> list[tuple[int, int, int, int, int]]:
    """Return rows (pyramid, layer, frames, scenes, clips), without drawing any scene."""
    return [
        (
            position,
            layer,
            frames,
            pyramid.scenes_per_layer,
            pyramid.scenes_per_layer * clips_per_scene(pyramid.sampling, layer, len(pyramid.axes), anchor=pyramid.anchor),
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


_SPEC = TypeAdapter(SceneSpec)


def _plan_scene(recipe: Recipe, scene: SceneKey) -> tuple[ScenePlan, list[ClipPlan]]:
    pyramid = recipe.pyramid[scene.pyramid]
    shot = Shot(width=recipe.video.width, height=recipe.video.height, fps=recipe.video.fps, frames=scene.frames)
    laws = {axis: recipe.law(axis) for axis in pyramid.axes}
    layout_laws = {axis: recipe.layout_law(axis) for axis in pyramid.axes}
    family, key = scene.family, (scene.layer, scene.frames, scene.number)
    drawn = draw_scene(_family(recipe, family), stream(recipe.seed, CONTENT, family, *key), shot, layout_laws)
    spec = _SPEC.validate_python(rounded(drawn.model_dump(mode="json")))
    controls = control_values(
        pyramid.sampling,
        pyramid.axes,
        seed=recipe.seed,
        family=family,
        layer=scene.layer,
        frames=scene.frames,
        scene=scene.number,
        anchor=pyramid.anchor,
    )
    clips = []
    for index, drawn_controls in enumerate(controls):
        control = {axis: rounded(value) for axis, value in drawn_controls.items()}
        effect = _effect_words(control) if recipe.captions.mention_effect else None
        clips.append(
            ClipPlan(
                clip_id=f"{scene.scene_id}-{index}",
                scene_id=scene.scene_id,
                pyramid=scene.pyramid,
                layer=scene.layer,
                scene=scene.number,
                index=index,
                frames=scene.frames,
                family=family,
                axes=pyramid.axes,
                controls=control,
                values={axis: rounded(laws[axis].value(value)) for axis, value in control.items()},
                caption=_caption(recipe, spec, stream(recipe.seed, CAPTION, family, *key), effect),
            )
        )
    return ScenePlan(scene_id=scene.scene_id, spec=spec, clip_ids=tuple(clip.clip_id for clip in clips)), clips


def _family(recipe: Recipe, name: str) -> Family:
    annotation = recipe.scene.marks if recipe.scene is not None else None
    return blend_family(annotation) if name == "blend" and annotation is not None else FAMILIES[name]


def _caption(recipe: Recipe, spec: SceneSpec, rng: np.random.Generator, effect: str | None) -> str:
    """Return the words for a scene: drawn from its spec or, for a custom .blend, those it was marked with."""
    if recipe.captions.two_parts:
        return caption_parts(spec, rng, effect).whole
    if recipe.scene is None or recipe.scene.marks is None or spec.blend is None:
        return caption(spec, rng, effect=effect)
    words = recipe.scene.marks.caption.rstrip(".")
    return f"{words}, {effect}." if effect else f"{words}."


def _effect_words(controls: dict[str, float]) -> str | None:
    # Below a quarter of the range the effect is too near neutral for words to be true.
    words = [AXES[axis].effect_words[int(control > 0)] for axis, control in controls.items() if abs(control) >= 0.25]
    return " and ".join(words) or None
