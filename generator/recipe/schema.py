"""The recipe: what a person writes. Declared once, frozen, unknown keys refused; read and checked by `load`."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from generator.recipe.licence import check_licence
from generator.recipe.render_settings import RenderSettings
from generator.recipe.sampling import Sampling, clips_per_scene
from generator.recipe.section import Section
from generator.recipe.truth_section import TruthPasses
from scenes.axes import AXES, UnitLaw
from scenes.errors import InputError, closest
from scenes.families import FAMILIES
from scenes.families.blend_annotation import Annotation, RenderCost


def nearest_frame_counts(frames: int) -> str:
    """Return the allowed frame counts (4n+1) around a refused one, as words."""
    below = max(1, (frames - 1) // 4 * 4 + 1)
    return f"{below} and {below + 4}" if frames > 1 else "1 and 5"


MOST_CLIPS = 10_000_000


class Video(Section):
    """The format of every clip and how it is encoded."""

    width: int = Field(default=512, ge=16, le=8192, description="picture width in pixels, even")
    height: int = Field(default=512, ge=16, le=8192, description="picture height in pixels, even")
    fps: int = Field(default=16, ge=1, le=240, description="frames per second")
    crf: int = Field(default=12, ge=0, le=51, description="H.264 constant rate factor, lower is better")
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"] = Field(
        default="medium", description="H.264 speed preset"
    )
    keep_frames: tuple[Literal["png", "exr"], ...] = Field(
        default=(),
        description="lossless frames to keep beside the clip: png (8-bit sRGB), exr (scene-linear half float)",
    )

    @field_validator("width", "height")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError(f"must be even, because H.264 4:2:0 halves the colour planes; use {value - 1} or {value + 1}")
        return value


class Law(Section):
    """A unit law `value(c) = neutral * ratio ** c`, or `neutral + step * c`; what is left out is the axis's default."""

    added_later = frozenset({"step"})

    neutral: float | None = Field(
        default=None,
        description='physical value at c = 0: a number, or as people write it, such as "1/50", "f/2.8" or "3200K"',
        json_schema_extra={"anyOf": [{"type": "number"}, {"type": "string"}, {"type": "null"}]},
    )
    ratio: float | None = Field(default=None, gt=0, description="factor from c = 0 to c = 1")
    step: float | None = Field(default=None, description="what is added from c = 0 to c = 1, for axes in EV")

    def over(self, default: UnitLaw) -> UnitLaw:
        """Return the law with what is left out taken from a default. `check_kind` says what cannot be taken over it."""
        neutral = default.neutral if self.neutral is None else self.neutral
        if default.additive:
            return UnitLaw(neutral=neutral, step=default.step if self.step is None else self.step)
        return UnitLaw(neutral=neutral, ratio=default.ratio if self.ratio is None else self.ratio)

    def check_kind(self, default: UnitLaw, key: str) -> None:
        """Raise ValueError, naming `key`, for a constant that the axis's kind of law does not have or that leaves no range."""
        wrong, right = ("ratio", "step") if default.additive else ("step", "ratio")
        if getattr(self, wrong) is not None:
            given = f"{key}.{wrong} = {getattr(self, wrong):g}"
            raise ValueError(f"{given}: the law of this axis has no {wrong}, its default is {default}; give {right} instead")
        if self.step == 0:
            raise ValueError(f"{key}.step = 0: the value is the same at every control; give another, such as {default.step:g}")
        if self.neutral is not None and self.neutral <= 0 and not default.additive:
            raise ValueError(f"{key}.neutral = {self.neutral:g}: give a number above 0, such as {default.neutral:g}")


class AxisLaw(Law):
    """Overrides of an axis's unit law: which values are rendered, never what stands before the camera."""

    added_later = frozenset({"layout", "step"})

    layout: Law | None = Field(
        default=None,
        description="the law that scenes are laid out for, if not the axis's default; another one draws other scenes",
    )


class Pyramid(Section):
    """One pyramid: which axes are controlled, over which content, in which layers."""

    added_later = frozenset({"anchor"})

    axes: tuple[str, ...] = Field(
        min_length=1, description="control axes, one or several", json_schema_extra={"items": {"enum": [*AXES]}}
    )
    family: tuple[str, ...] = Field(
        min_length=1,
        description="scene families, taken in turn by the scenes of a layer",
        json_schema_extra={"items": {"enum": [*FAMILIES]}},
    )
    layers: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(
        default=(9, 7, 5, 3, 1), min_length=1, description="control values per scene, one number per layer"
    )
    scenes_per_layer: int = Field(default=2, ge=1, le=1_000_000, description="scenes per layer, at each frame count")
    frames: tuple[Annotated[int, Field(ge=1, le=1025)], ...] = Field(
        default=(9,), min_length=1, description="frame counts, each 4n+1 (1 is a still)"
    )
    sampling: Sampling = Field(default="pyramid", description="pyramid (stratified), or even, uniform, grid for ablations")
    anchor: bool = Field(default=False, description="one more clip of every scene at exactly c = 0, the partner of the others")

    @field_validator("axes", "family", "frames", "layers", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | int) and not isinstance(value, bool) else value

    @field_validator("axes")
    @classmethod
    def _known_axes(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in AXES:
                raise ValueError(f"unknown axis '{name}'{closest(name, AXES)}; known: {', '.join(AXES)}")
        return _distinct(names)

    @field_validator("family")
    @classmethod
    def _known_families(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in FAMILIES:
                raise ValueError(f"unknown scene family '{name}'{closest(name, FAMILIES)}; known: {', '.join(FAMILIES)}")
        return _distinct(names)

    @field_validator("layers")
    @classmethod
    def _layers(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        return _distinct(values)

    @field_validator("frames")
    @classmethod
    def _frames(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        for value in values:
            if value % 4 != 1:
                raise ValueError(
                    f"{value} is not 4n+1 (video VAEs compress time by 4); nearest allowed: {nearest_frame_counts(value)}"
                )
        return _distinct(values)

    @model_validator(mode="after")
    def _families_show_axes(self) -> Pyramid:
        for family in self.family:
            blind = [axis for axis in self.axes if axis not in FAMILIES[family].shown_axes]
            if blind:
                able = [name for name, other in FAMILIES.items() if set(self.axes) <= other.shown_axes]
                raise ValueError(
                    f"family '{family}' does not show {' and '.join(blind)}; "
                    + (f"families that show {', '.join(self.axes)}: {', '.join(able)}" if able else "split the axes up")
                )
        return self


def _law_in_units(law: Any, axis: str) -> Any:
    """Return a law with a neutral that is text (`1/50`) as a number, to the digits that a plan keeps."""
    if not isinstance(law, dict) or axis not in AXES:
        return law
    law = {key: _law_in_units(part, axis) if key == "layout" else part for key, part in law.items()}
    if isinstance(law.get("neutral"), str):
        try:
            law["neutral"] = float(f"{AXES[axis].parse(law['neutral']):.9g}")
        except InputError as error:
            raise ValueError(f"{axis}.neutral: {error}") from None
    return law


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"'{value}' stands twice; name each once")
    return values


class Captions(Section):
    """How captions are written."""

    added_later = frozenset({"two_parts"})

    mention_effect: bool = Field(default=False, description="add words for the effect, which the method leaves out")
    two_parts: bool = Field(
        default=False,
        description="one sentence for the content and one for the motion, each also in a column of its own",
    )


class Tolerances(Section):
    """The bars of `stopdown verify`."""

    added_later = frozenset({"accept_unproven"})

    median_error: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description="median absolute error per axis, in its unit (stop, mired); default from the axis",
    )
    unreadable_share: float = Field(
        default=0.05, ge=0, le=1, description="most clips, of those whose effect is large enough, that a probe may fail to read"
    )
    rank_correlation: float = Field(default=0.99, ge=-1, le=1, description="least Spearman correlation within a scene")
    accept_unproven: tuple[str, ...] = Field(
        default=(), description="axes of a custom .blend whose labels may stay without proof where they have none"
    )

    @field_validator("median_error", "accept_unproven")
    @classmethod
    def _known(cls, bars: Any) -> Any:
        for name in bars:
            if name not in AXES:
                raise ValueError(f"unknown axis '{name}'{closest(name, AXES)}; known: {', '.join(AXES)}")
        return bars


class CustomBlend(Section):
    """A custom .blend for family `blend`; its annotation (`marks`) is read from beside the file when the recipe is."""

    family: Literal["blend"] = Field(description='"blend"')
    file: str = Field(min_length=1, description="the .blend file, relative to the recipe")
    marks: Annotation | None = Field(default=None, description="what `stopdown mark` wrote beside the file")
    # Left out of plans: it differs between machines and changes no clip.
    cost: RenderCost | None = Field(default=None, exclude=True, description="what rendering it took when it was marked")


class Recipe(Section):
    """A whole recipe."""

    added_later = frozenset({"scene", "truth"})

    name: str = Field(description="name of the dataset: letters, digits, - and _")
    description: str = Field(default="", description="one line for the dataset card")
    license: str | None = Field(default=None, description="licence of the dataset you build, an SPDX id such as CC-BY-4.0")
    seed: int = Field(default=0, ge=0, lt=2**63, description="seed of every draw")
    video: Video = Video()
    render: RenderSettings = RenderSettings()
    axes: dict[str, AxisLaw] = Field(
        default_factory=dict,
        description="overrides of the axes' unit laws, by axis",
        json_schema_extra={"propertyNames": {"enum": [*AXES]}},
    )
    scene: CustomBlend | None = Field(default=None, description="a custom .blend, for family blend")
    pyramid: tuple[Pyramid, ...] = Field(min_length=1, description="one or several pyramids")
    truth: TruthPasses | None = Field(default=None, description="ground truth of every scene, kept beside the clips")
    captions: Captions = Captions()
    verify: Tolerances = Tolerances()
    # Left out of plans and digests: how a dataset is learnt from changes no clip of it.
    train: dict[str, Any] = Field(default_factory=dict, exclude=True, description="settings of `stopdown train`, checked by it")
    evaluate: dict[str, Any] = Field(
        default_factory=dict, exclude=True, description="settings of `stopdown evaluate` in a run, checked by `stopdown run`"
    )
    compare: dict[str, Any] = Field(
        default_factory=dict, exclude=True, description="what several runs differ in, checked by `stopdown run`"
    )

    def of_the_data(self) -> Recipe:
        """Return the recipe without what only training and evaluation read, as plans and stores keep it."""
        return self.model_copy(update={"train": {}, "evaluate": {}, "compare": {}})

    @field_validator("name")
    @classmethod
    def _slug(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", value):
            raise ValueError("must be 1 to 64 letters, digits, - or _, beginning with a letter or digit")
        return value

    @field_validator("license")
    @classmethod
    def _spdx(cls, value: str | None) -> str | None:
        try:
            return None if value is None else check_licence(value)
        except InputError as error:
            raise ValueError(str(error)) from None

    @field_validator("axes", mode="before")
    @classmethod
    def _in_units(cls, laws: Any) -> Any:
        return {name: _law_in_units(law, name) for name, law in laws.items()} if isinstance(laws, dict) else laws

    @model_validator(mode="after")
    def _laws_hold(self) -> Recipe:
        used = {axis for pyramid in self.pyramid for axis in pyramid.axes}
        for name in self.axes:
            if name not in AXES:
                raise ValueError(f"axes.{name}: unknown axis{closest(name, AXES)}; known: {', '.join(AXES)}")
            if name not in used:
                raise ValueError(f"axes.{name}: no pyramid controls this axis; remove the override or add the axis")
        for name in sorted(used):
            override = self.axes.get(name, AxisLaw())
            override.check_kind(AXES[name].default_law, f"axes.{name}")
            if override.layout is not None:
                override.layout.check_kind(AXES[name].default_law, f"axes.{name}.layout")
            try:
                AXES[name].check_law(self.law(name), self.video.fps)
                AXES[name].check_law(self.layout_law(name), self.video.fps)
            except InputError as error:
                raise ValueError(f"axes.{name}: {error}") from None
        return self

    @model_validator(mode="after")
    def _custom_blend_is_used(self) -> Recipe:
        used = any("blend" in pyramid.family for pyramid in self.pyramid)
        if used and self.scene is None:
            raise ValueError('family \'blend\' needs a file; write [scene] family = "blend" and file = "YOUR.blend"')
        if self.scene is not None and not used:
            raise ValueError("[scene] names a file that no pyramid uses; add family 'blend' to one or remove the section")
        if used and self.render.fidelity != "pbr":
            raise ValueError(
                f"render.fidelity is '{self.render.fidelity}', but family 'blend' has materials and light of its own; "
                "write render.fidelity = 'pbr'"
            )
        return self

    @model_validator(mode="after")
    def _captions_can_be_parted(self) -> Recipe:
        if self.captions.two_parts and self.scene is not None:
            raise ValueError(
                "captions.two_parts needs scenes whose words are drawn; a custom .blend (family 'blend') has the one "
                "caption that `stopdown mark` was given; leave captions.two_parts out"
            )
        return self

    @model_validator(mode="after")
    def _clips_can_be_counted(self) -> Recipe:
        clips = sum(
            len(one.frames)
            * one.scenes_per_layer
            * sum(clips_per_scene(one.sampling, layer, len(one.axes), anchor=one.anchor) for layer in one.layers)
            for one in self.pyramid
        )
        if clips > MOST_CLIPS:
            raise ValueError(f"the pyramids are {clips:,} clips; at most {MOST_CLIPS:,} can be planned: fewer scenes_per_layer")
        return self

    @model_validator(mode="after")
    def _accepts_what_is_used(self) -> Recipe:
        for axis in self.verify.accept_unproven:
            if axis not in {name for pyramid in self.pyramid for name in pyramid.axes}:
                raise ValueError(f"verify.accept_unproven: no pyramid controls '{axis}'; remove it or add the axis")
        if self.verify.accept_unproven and self.scene is None:
            raise ValueError(
                "verify.accept_unproven is for a custom .blend (family 'blend'); in other families every axis is verified"
            )
        return self

    @model_validator(mode="after")
    def _clips_are_distinct(self) -> Recipe:
        seen: set[tuple[str, int, int]] = set()
        for pyramid in self.pyramid:
            for family in pyramid.family:
                for layer in pyramid.layers:
                    for frames in pyramid.frames:
                        if (family, layer, frames) in seen:
                            raise ValueError(
                                f"two pyramids draw the same clips: family '{family}', layer {layer}, {frames} frames; "
                                "give them other families, layers or frame counts, or join their axes in one pyramid"
                            )
                        seen.add((family, layer, frames))
        return self

    def law(self, axis: str) -> UnitLaw:
        """Return the unit law of an axis, with the recipe's overrides."""
        return self.axes.get(axis, AxisLaw()).over(AXES[axis].default_law)

    def layout_law(self, axis: str) -> UnitLaw:
        """Return the law that scenes are laid out for, whatever the recipe's `neutral` and `ratio` are."""
        default = AXES[axis].layout_law(self.video.fps)
        layout = self.axes.get(axis, AxisLaw()).layout
        return default if layout is None else layout.over(default)

    @property
    def used_axes(self) -> tuple[str, ...]:
        """The axes that any pyramid controls, in the registry's order."""
        return tuple(name for name in AXES if any(name in pyramid.axes for pyramid in self.pyramid))
