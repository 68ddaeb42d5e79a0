"""What a person may say about an evaluation: the `[evaluate]` section of a recipe. Nothing here needs torch."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from generator.recipe.section import Section
from scenes.axes import AXES
from scenes.errors import InputError, closest
from trainer.config.train import Frames

SWEEP = re.compile(r"\s*(?P<low>[-+]?\d*\.?\d+)\s*\.\.\s*(?P<high>[-+]?\d*\.?\d+)\s*:\s*(?P<count>\d+)\s*")
MOST_CONTROLS = 101
LEAST_FOR_DISTANCE = 8  # prompts; as `trainer.evaluation.features.distances.MIN_SAMPLES`, which needs scipy
EvaluatedMode = Literal["decoupled", "joint", "control_only", "lora_only", "backbone_only"]
CONTROLLED = frozenset({"decoupled", "joint", "control_only"})  # as `trainer.control.modes`, which needs torch
WITHOUT_LORA = frozenset({"control_only", "backbone_only"})
Words = Annotated[str, Field(min_length=1)]


class EvaluateSettings(Section):
    """A whole `[evaluate]` section."""

    axes: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="axes to sweep; all of the adapter if not given"
    )
    controls: str = Field(default="-1.5..1.5:7", description="LOW..HIGH:COUNT or a list; 0 is added, beyond 1 is extrapolation")
    prompts: tuple[Words, ...] = Field(default=(), description="prompts; captions of held-out scenes if none are given")
    axis_prompts: dict[str, Annotated[tuple[Words, ...], Field(min_length=1)]] = Field(
        default_factory=dict, description="prompts by axis, in the place of `prompts`: what shows one axis may hide another"
    )
    prompts_count: int = Field(default=32, ge=1, description="prompts at most for each axis, spread over what there is")
    seed: int = Field(default=0, ge=0, lt=2**62, description="seed of the noise, which all values of a sweep share")
    seeds: int = Field(default=1, ge=1, le=1000, description="so many seeds for each prompt, counting up")
    modes: tuple[EvaluatedMode, ...] = Field(
        default=("decoupled", "joint", "lora_only", "backbone_only"), min_length=1, description="inference modes to compare"
    )
    text_baseline: bool = Field(default=True, description="compare with words for the effect put behind the prompt")
    features: tuple[Words, ...] = Field(
        default=("clip", "xclip"),
        min_length=1,
        description="feature extractors: clip or clip=PATH, xclip or xclip=PATH, tiny for the backbone's own",
    )
    fep: bool = Field(
        default=True,
        description="measure drift from the backbone in one denoising step (needs 8 prompts)",
        serialization_alias="fast",  # as runs record it, so that finished ones stay finished
    )
    frames: Frames | None = Field(default=None, description="frames, 4n+1; the backbone's usual ones if not given")
    width: int | None = Field(default=None, ge=16, description="pixels; the backbone's usual ones if not given")
    height: int | None = Field(default=None, ge=16, description="pixels; the backbone's usual ones if not given")
    steps: int | None = Field(default=None, ge=1, description="denoising steps; the backbone's usual ones if not given")
    guidance: float | None = Field(default=None, ge=0, description="classifier-free guidance; 5 if not given")
    control_guidance: float | None = Field(
        default=None, ge=0, description="how many times as far guidance pushes towards the control; 1 if not given"
    )
    text_tokens: int | None = Field(default=None, ge=1, le=4096, description="text tokens; as in training if not given")
    fps: int = Field(default=16, ge=1, le=240, description="frames per second; exposures are meant for 16")
    batch: int = Field(default=1, ge=1, description="videos at a time")

    @field_validator("controls")
    @classmethod
    def _controls(cls, value: str) -> str:
        try:
            parse_controls(value)
        except InputError as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("features")
    @classmethod
    def _features(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for word in value:
            kind, equals, source = word.partition("=")
            if kind not in ("clip", "xclip", "tiny") or (equals and (not source or kind == "tiny")):
                raise ValueError(f"'{word}' is no extractor; allowed are clip, clip=PATH, xclip, xclip=PATH and tiny")
        if len({word.partition("=")[0] for word in value}) != len(value):
            raise ValueError("an extractor stands twice; name each once")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> EvaluateSettings:
        if len(set(self.modes)) != len(self.modes):
            raise ValueError("modes: one stands twice; name each once")
        if self.control_guidance not in (None, 1) and self.guidance is not None and self.guidance <= 1:
            raise ValueError(
                f"control_guidance {self.control_guidance:g} needs the unconditional pass, and guidance {self.guidance:g} has "
                "none; give a guidance above 1"
            )
        return self

    @model_validator(mode="after")
    def _prompts_once(self) -> EvaluateSettings:
        for axis in self.axis_prompts:
            if axis not in AXES:
                raise ValueError(f"axis_prompts: unknown axis '{axis}'{closest(axis, AXES)}; known: {', '.join(AXES)}")
        if self.prompts and self.axis_prompts:
            raise ValueError("prompts and axis_prompts were given; give one of them")
        return self

    @property
    def has_prompts(self) -> bool:
        """Whether prompts are given here, so that none need be found elsewhere."""
        return bool(self.prompts or self.axis_prompts)


def parse_controls(text: str) -> tuple[float, ...]:
    """Return the controls of `-1.5..1.5:7` or `-1,0,1`, ascending, with 0 among them.

    Raises InputError for what is neither and for a sweep without two different controls.
    """
    match = SWEEP.fullmatch(text)
    right = "write LOW..HIGH:COUNT such as -1.5..1.5:7, or a list such as -1,0,1"
    if match is not None:
        count = int(match["count"])
        if not 2 <= count <= MOST_CONTROLS:
            raise InputError(f"controls '{text}' has count {count}, allowed is 2 to {MOST_CONTROLS}; {right}")
        found = [float(control) for control in np.linspace(float(match["low"]), float(match["high"]), count)]
    else:
        try:
            found = [float(part) for part in text.split(",")]
        except ValueError:
            raise InputError(f"controls '{text}' are no numbers; {right}") from None
    if not np.isfinite(found).all() or len(found) > MOST_CONTROLS or max(map(abs, found)) > 10:
        raise InputError(f"controls '{text}' must be {MOST_CONTROLS} at most, from -10 to 10; trained were -1 to 1; {right}")
    controls = tuple(sorted({round(control, 6) + 0.0 for control in (*found, 0.0)}))
    if len(controls) < 3:
        raise InputError(f"controls '{text}' make no sweep; give two or more besides 0; {right}")
    return controls
