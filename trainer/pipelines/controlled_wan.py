"""`ControlledWan`: diffusers' WanPipeline whose calls take camera values in units.

Shapes: N videos, F latent frames, A axes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from diffusers import WanPipeline
from torch import Tensor

from generator.recipe.backbone_grid import Grid
from scenes.axes import AXES
from scenes.errors import InputError
from trainer.adapters.card import AdapterCard
from trainer.adapters.folder import attach_saved
from trainer.adapters.saved import SavedAdapter
from trainer.backbones.load import EXPERTS, experts, load_backbone
from trainer.backbones.text_length import WAN_TOKENS
from trainer.control import CONTROLS, AxisControl, Mode, WanAdapter, default_mode
from trainer.control.config import AdapterConfig
from trainer.control.curve import Control, ControlCurve, furthest, is_curve, latent_rows, parse_curve
from trainer.control.modes import PARTS
from trainer.control.numbers import finite_number, is_number
from trainer.pipelines.lora_calls import GuardedLora
from trainer.pipelines.schedulers import use_scheduler

WAN_GUIDANCE = 5.0  # WanPipeline's own
DATASET_FPS = 16.0  # at which the seconds of a curve are counted if nothing else is said
WAN_FRAMES = 81  # WanPipeline's own
Value = str | float | ControlCurve
Values = Value | Sequence[Value]
Numbers = float | ControlCurve | Sequence[float | ControlCurve]


class ControlledWan(GuardedLora):
    """A WanPipeline with an adapter: schedulers, offloading, quantization and callbacks work as diffusers documents them.

    `pipe = ControlledWan.from_pretrained(backbone, adapter)`, then `pipe("a car passes", shutter="1/50")`.
    """

    adapters: Mapping[str, WanAdapter]
    card: AdapterCard | None

    @classmethod
    def from_pretrained(
        cls,
        backbone: str | Path,
        adapter: str | Path,
        *,
        allow_other_backbone: bool = False,
        cache: Path | None = None,
        **options: Any,
    ) -> ControlledWan:
        """Load a backbone (folder, hub id, `tiny-random`) and put an adapter on it: a folder, or `owner/name@revision`.

        Options are those of `WanPipeline.from_pretrained` (`dtype`, `quantization_config`, …). Raises InputError in
        one line for what cannot be found, and for an adapter that does not belong to the backbone.
        """
        pipe = load_backbone(str(backbone), cache=cache, **options)
        return cls.from_pipeline(pipe, adapter, allow_other_backbone=allow_other_backbone)

    @classmethod
    def from_pipeline(
        cls, pipe: WanPipeline, adapter: str | Path | SavedAdapter, *, allow_other_backbone: bool = False
    ) -> ControlledWan:
        """Put an adapter, a folder or an opened one, on a loaded pipeline, whose components the result shares."""
        saved = adapter if isinstance(adapter, SavedAdapter) else SavedAdapter.open(adapter)
        adapters = attach_saved(experts(pipe), saved, allow_other_backbone=allow_other_backbone)
        return cls.around(pipe, adapters, saved.card)

    @classmethod
    def around(cls, pipe: WanPipeline, adapters: Mapping[str, WanAdapter], card: AdapterCard | None = None) -> ControlledWan:
        """Return a ControlledWan of a pipeline whose transformers already carry adapters, as during training."""
        made = cls(**pipe.components, boundary_ratio=pipe.config.boundary_ratio, expand_timesteps=pipe.config.expand_timesteps)
        made.adapters, made.card = dict(adapters), card
        return made

    def set_scheduler(self, name: str | None = None, *, flow_shift: float | None = None) -> None:
        """Choose a scheduler (`trainer.pipelines.schedulers`), a shift of the noise levels, or both; the rest stays."""
        use_scheduler(self, name, flow_shift)

    @property
    def axes(self) -> tuple[AxisControl, ...]:
        """The axes that the adapter controls, in the order of its scalars."""
        control = next(iter(self.adapters.values())).config.control
        return control.axes if control is not None else ()

    @property
    def text_tokens(self) -> int:
        """The number of text tokens that the adapter was trained with, else Wan's own: other padding is another picture."""
        return (self.card.text_tokens if self.card is not None else None) or WAN_TOKENS

    def controls(
        self,
        videos: int,
        values: Mapping[str, Values],
        control: Numbers | Mapping[str, Numbers] | None = None,
        limit: float | None = None,
        *,
        num_frames: int = WAN_FRAMES,
        fps: float = DATASET_FPS,
    ) -> Tensor:
        """Return the controls [N, A] of values in units, or of `control`, the normalised scalar, per axis or for the only one.

        One value serves all videos, a list gives one each; an axis without any stays neutral. With a curve among them
        (`trainer.control.curve`, or text such as "f/8@0s f/1.4@0.5s") they are [N, F, A], for a video of `num_frames` at `fps`.
        Raises InputError for an axis the adapter lacks, an axis given twice, a list of another length, a control beyond `limit`
        (none by default) and a curve that goes on after the video.
        """
        names = [axis.name for axis in self.axes]
        numbers = self._numbers(control)
        strangers = [name for name in (*values, *numbers) if name not in names]
        if strangers:
            raise InputError(f"this adapter does not control '{strangers[0]}'; it controls {', '.join(names) or 'nothing'}")
        doubled = set(values) & set(numbers)
        if doubled:
            raise InputError(f"{min(doubled)} was given in units and as a control; give one of them")
        columns = []
        for axis in self.axes:
            given: list[Control] = [0.0]
            if axis.name in values:
                given = [_in_units(axis, value) for value in _several(axis.name, values[axis.name])]
            if axis.name in numbers:
                given = [_number(axis, value) for value in _several(axis.name, numbers[axis.name])]
            columns.append(_column(axis, given, videos, limit))
        rows = [list(row) for row in zip(*columns, strict=True)] if columns else [[] for _ in range(videos)]
        per_latent = self.vae_scale_factor_temporal
        controls = latent_rows(rows, frames=num_frames, fps=fps, frames_per_latent=per_latent)
        return torch.tensor(controls, dtype=torch.float32)

    def _numbers(self, control: Numbers | Mapping[str, Numbers] | None) -> Mapping[str, Numbers]:
        if control is None:
            return {}
        if isinstance(control, Mapping):
            return control
        if len(self.axes) != 1:
            names = ", ".join(axis.name for axis in self.axes) or "nothing"
            raise InputError(f"control was given without an axis and this adapter controls {names}; name the axis")
        return {self.axes[0].name: control}

    def __call__(
        self,
        prompt: str | list[str] | None = None,
        *,
        control: Numbers | Mapping[str, Numbers] | None = None,
        mode: str | None = None,
        strength: float = 1.0,
        control_guidance: float = 1.0,
        limit: float | None = None,
        fps: float = DATASET_FPS,
        **options: Any,
    ) -> Any:
        """Generate videos under control; returns what WanPipeline returns.

        Values come as arguments named like the axes (`shutter="1/50"`, `temperature=3200`), one for all prompts or a list with
        one per prompt; a number is in the axis's unit. A value that changes over the video is a curve, such as
        `aperture="f/8@0s f/1.4@2s"`, whose seconds are those of a video at `fps`. `control` gives normalised scalars instead.
        `mode` is one of the inference modes, `strength` = 0 the bare backbone; all other options are WanPipeline's. Both passes
        of classifier-free guidance see the control; `control_guidance` above 1 shows less of it to the unconditional one, so
        that guidance pushes the video that many times as far towards the control (see `unguided_share`). Raises InputError as
        `controls`, `WanAdapter.set_mode` and `unguided_share` do.
        """
        values = {name: options.pop(name) for name in list(options) if name in AXES}
        self.check_intact()
        num_frames = options.get("num_frames", WAN_FRAMES)
        per_prompt = self.controls(_prompts(prompt, options), values, control, limit, num_frames=num_frames, fps=fps)
        controls = per_prompt.repeat_interleave(options.get("num_videos_per_prompt") or 1, dim=0)  # [N, A] or [N, F, A]
        attention_kwargs = {**(options.pop("attention_kwargs", None) or {}), CONTROLS: controls}
        options.setdefault("max_sequence_length", self.text_tokens)
        with ExitStack() as passes:
            for adapter in self.adapters.values():
                adapter.set_mode(mode if mode is not None else default_mode(adapter.config), strength)
                adapter.set_frames(controls.shape[1] if controls.ndim == 3 else 1)
                passes.callback(adapter.set_frames, 1)
            if control_guidance != 1:
                configs = [adapter.config for adapter in self.adapters.values()]
                check_control_acts(configs, [mode], strength, control_guidance)
                for name, guidance in _guidances(options, tuple(self.adapters)).items():
                    share = unguided_share(control_guidance, guidance)
                    passes.enter_context(self.adapters[name].unconditional(controls * share))
            return super().__call__(prompt, attention_kwargs=attention_kwargs, **options)


def unguided_share(control_guidance: float, guidance: float) -> float:
    """Return the share of the control that the unconditional pass is to see for a given push towards the control.

    With guidance g the velocity is u + g (n - u), of the unconditional pass u and the named one n. Where both see the control
    c, an effect linear in c enters once; where u sees only k c, it enters g - (g - 1) k times. Raises InputError for numbers
    that cannot be, and where there is no unconditional pass.
    """
    if not (math.isfinite(control_guidance) and control_guidance >= 0):
        raise InputError(
            f"control guidance {control_guidance:g} cannot be; give 0 or more, 1 for the control as it was learned"
        )
    if control_guidance == 1:
        return 1.0
    if guidance <= 1:
        raise InputError(
            f"control guidance {control_guidance:g} needs the unconditional pass, and guidance {guidance:g} has none; give a "
            "guidance above 1, or a control guidance of 1"
        )
    return (guidance - control_guidance) / (guidance - 1)


def control_acts(configs: Sequence[AdapterConfig], mode: str | None, strength: float) -> bool:
    """Return whether the control of any of a pipeline's adapters acts in a mode, each one's default if None, at a strength."""
    return strength != 0 and any(PARTS[Mode(mode) if mode is not None else default_mode(config)].control for config in configs)


def check_control_acts(
    configs: Sequence[AdapterConfig], modes: Sequence[str | None], strength: float, control_guidance: float
) -> None:
    """Raise InputError for a control guidance where no control acts: there is nothing that it could push towards."""
    if control_guidance == 1 or any(control_acts(configs, mode, strength) for mode in modes):
        return
    used = sorted({str(mode or default_mode(config)) for mode in modes for config in configs})
    why = "at strength 0 no control acts" if strength == 0 else f"in mode {' and '.join(used)} no control acts"
    raise InputError(f"control guidance {control_guidance:g} has nothing to push towards: {why}; leave it at 1")


def _guidances(options: Mapping[str, Any], adapters: Sequence[str]) -> dict[str, float]:
    """Return each transformer's guidance, as WanPipeline reads its arguments: the second one's is the first's if not given.

    Where the first one's is 1 or less, the pipeline makes no unconditional pass for either, whatever the second one's is.
    """
    first = float(options.get("guidance_scale", WAN_GUIDANCE))
    second = options.get("guidance_scale_2")
    return {name: first if name == EXPERTS[0] or second is None or first <= 1 else float(second) for name in adapters}


def grid_of(pipe: WanPipeline) -> Grid:
    """Return which sizes and lengths a loaded or described backbone takes."""
    _, rows, columns = next(iter(experts(pipe).values())).config.patch_size
    space = pipe.vae_scale_factor_spatial
    return Grid(width=space * columns, height=space * rows, frames=pipe.vae_scale_factor_temporal)


def check_size(pipe: WanPipeline, *, height: int, width: int, num_frames: int) -> None:
    """Raise InputError, naming the nearest size, for one the autoencoder and the patches cannot take; diffusers would round."""
    grid_of(pipe).check(width=width, height=height, frames=num_frames)


def _several(axis: str, values: Any) -> list[Any]:
    """Return one value or several as a list; numpy's and torch's scalars and arrays are numbers and lists as well."""
    if isinstance(values, str | ControlCurve) or is_number(values):
        return [values]
    if isinstance(values, bool) or not isinstance(values, Iterable):
        raise InputError(f"{axis} {values!r} is no value; give a number, a text in units, a curve, or a list of them")
    return list(values)


def _in_units(axis: AxisControl, value: Any) -> Control:
    """Return the control, or the curve, of a value in units."""
    if isinstance(value, str) and is_curve(value):
        return parse_curve(value, axis.control, axis.name)
    return value if isinstance(value, ControlCurve) else axis.control(value)


def _number(axis: AxisControl, value: Any) -> Control:
    return value if isinstance(value, ControlCurve) else finite_number(value, axis.name)


def _column(axis: AxisControl, given: Sequence[Control], videos: int, limit: float | None) -> list[Control]:
    """Return one control per video, checked."""
    if len(given) not in (1, videos):
        raise InputError(f"{len(given)} values of {axis.name} for {videos} prompts; give one, or one per prompt")
    for control in map(furthest, given):
        if not math.isfinite(control):
            raise InputError(f"control {control} of {axis.name} is not a number; give a finite one, trained were -1 to 1")
        if limit is not None and abs(control) > limit:
            raise InputError(
                f"{axis.name}: {axis.format(control)} is control {control:.3g}, beyond the limit {limit:g}; come nearer"
            )
    return list(given) if len(given) == videos else [*given] * videos


def _prompts(prompt: str | list[str] | None, options: Mapping[str, Any]) -> int:
    """Return the number of prompts of a call."""
    if isinstance(prompt, list):
        return len(prompt)
    embeds = options.get("prompt_embeds")
    return embeds.shape[0] if prompt is None and embeds is not None else 1


__all__ = ["ControlledWan", "Mode", "check_size"]
