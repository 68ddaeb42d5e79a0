"""How the flow objective calls a backbone: noise levels, the expert in charge of each, the form of timesteps, precision.

Shapes: B clips, C latent channels, T latent frames, H rows, W columns; S video tokens; L text tokens, X text width; A axes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers import WanPipeline
from torch import Tensor, nn

from scenes.errors import InputError
from trainer.backbones.load import EXPERTS
from trainer.training.tasks.objective import (
    contrasted_losses,
    counterfactual_noise,
    flow_losses,
    mix,
    model_times,
    predict_velocity,
    sample_times,
    shift_times,
)


class Experts(nn.Module):
    """Two transformers as one module: a single forward for the whole batch, as wrappers such as DDP expect."""

    def __init__(self, transformers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(dict(transformers))

    def forward(
        self,
        first_B: Tensor,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        attention_kwargs: Mapping[str, Tensor] | None = None,
        **options: Any,
    ) -> tuple[Tensor]:
        """Return the velocity [B, C, T, H, W] of each video by the first expert where `first_B`, else by the second."""
        given = attention_kwargs or {}
        made = None
        for part, serves_B in zip(self.parts.values(), (first_B, ~first_B), strict=True):
            rows = serves_B.nonzero()[:, 0]
            if len(rows):
                own = {"attention_kwargs": {name: tensor[rows] for name, tensor in given.items()}} if given else {}
                velocity = part(
                    hidden_states=hidden_states[rows],
                    timestep=timestep[rows],
                    encoder_hidden_states=encoder_hidden_states[rows],
                    **own,
                    **options,
                )[0]
                made = velocity.new_zeros(hidden_states.shape) if made is None else made
                made = made.index_copy(0, rows, velocity)
        assert made is not None  # a batch has clips
        return (made,)


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What is random in a clip's loss: its noise level in (0, 1) and its noise, float32."""

    times_B: Tensor
    noise_BCTHW: Tensor

    def taken(self, places_B: Tensor) -> Draw:
        """Return the draw in which each clip has the noise and its level of the clip at a place of this one."""
        places_B = places_B.to(self.times_B.device)
        return Draw(times_B=self.times_B[places_B], noise_BCTHW=self.noise_BCTHW[places_B])

    def showing(self, latents_BCTHW: Tensor, shown_B: Tensor) -> Draw:
        """Return the draw whose noise shows, in place of each clip, the clip at a place of the batch."""
        latents_BCTHW, shown_B = latents_BCTHW.to(self.noise_BCTHW.device), shown_B.to(self.noise_BCTHW.device)
        noise_BCTHW = counterfactual_noise(latents_BCTHW, self.noise_BCTHW, self.times_B, shown_B)
        return Draw(times_B=self.times_B, noise_BCTHW=noise_BCTHW)


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """How much more what tells a scene's clips apart counts than what they share, and the scene of each clip [B]."""

    weight: float
    scenes_B: Tensor


@dataclass(frozen=True, kw_only=True)
class RectifiedFlow:
    """Rectified flow on a backbone.

    `trained` are the transformers under training; where the backbone has two, the first serves times from `boundary` up and
    the second those below, and times are drawn where a trained one serves. Inputs take `dtype`, the backbone's; weights that
    train are float32, and `autocast` computes with them in a narrower dtype without rounding the masters.
    """

    patch_size: tuple[int, int, int]
    per_token: bool = False
    steps: int = 1000
    boundary: float | None = None
    trained: tuple[str, ...] = (EXPERTS[0],)
    shift: float = 1.0
    dtype: torch.dtype = torch.float32
    autocast: torch.dtype | None = None

    @classmethod
    def of(
        cls,
        pipe: WanPipeline,
        trained: tuple[str, ...] = (EXPERTS[0],),
        *,
        shift: float = 1.0,
        dtype: torch.dtype = torch.float32,
        autocast: torch.dtype | None = None,
    ) -> RectifiedFlow:
        """Return the flow of a pipeline; raises InputError for a transformer that it lacks."""
        absent = [name for name in trained if getattr(pipe, name, None) is None]
        if absent or not trained or not set(trained) <= set(EXPERTS):
            raise InputError(
                f"this backbone has no expert '{(absent or trained or ('',))[0]}'; choose among {experts_of(pipe)}"
            )
        return cls(
            patch_size=tuple(getattr(pipe, trained[0]).config.patch_size),
            per_token=bool(pipe.config.expand_timesteps),
            steps=pipe.scheduler.config.num_train_timesteps,
            boundary=pipe.config.boundary_ratio,
            trained=trained,
            shift=shift,
            dtype=dtype,
            autocast=autocast,
        )

    @property
    def time_range(self) -> tuple[float, float]:
        """The noise levels that the trained transformers serve."""
        if self.boundary is None or len(self.trained) == 2:
            return 0.0, 1.0
        return (self.boundary, 1.0) if self.trained[0] == EXPERTS[0] else (0.0, self.boundary)

    def draw(self, latents_BCTHW: Tensor, generator: torch.Generator) -> Draw:
        """Return noise levels and noise for a batch, drawn on the generator's device."""
        times_B = times_within(latents_BCTHW.shape[0], generator, self.time_range, shift=self.shift)
        return Draw(times_B=times_B, noise_BCTHW=torch.randn(latents_BCTHW.shape, generator=generator, device=generator.device))

    def losses(
        self,
        module: nn.Module,
        latents_BCTHW: Tensor,
        text_BLX: Tensor,
        controls_BA: Tensor | None,
        draw: Draw,
        contrast: Contrast | None = None,
    ) -> Tensor:
        """Return the loss of every clip [B], float32, on the module's device; `module` is a transformer or `Experts`.

        Raises InputError for two trained experts without a boundary between them.
        """
        device = next(module.parameters()).device
        latents_BCTHW, text_BLX, noise_BCTHW = (x.to(device) for x in (latents_BCTHW, text_BLX, draw.noise_BCTHW))
        times_B, controls_BA = draw.times_B.to(device), None if controls_BA is None else controls_BA.to(device)
        transformer: Callable[..., Any] = module
        if len(self.trained) == 2:
            if self.boundary is None:
                raise InputError("two experts are trained and the backbone states no boundary between them; adapt one of them")
            transformer = partial(module, times_B >= self.boundary)
        timesteps = model_times(times_B, latents_BCTHW, self.patch_size, per_token=self.per_token, steps=self.steps)
        with torch.autocast(latents_BCTHW.device.type, self.autocast, enabled=self.autocast is not None):
            velocity_BCTHW = predict_velocity(
                transformer, mix(latents_BCTHW, noise_BCTHW, times_B), timesteps, text_BLX, controls_BA, self.dtype
            )
        if contrast is None:
            return flow_losses(velocity_BCTHW, latents_BCTHW, noise_BCTHW)
        scenes_B = contrast.scenes_B.to(device)
        return contrasted_losses(velocity_BCTHW, latents_BCTHW, noise_BCTHW, scenes_B, contrast.weight)


def experts_of(pipe: WanPipeline) -> str:
    """Return the names of a pipeline's transformers, as words."""
    return ", ".join(name for name in EXPERTS if getattr(pipe, name, None) is not None)


def times_within(count: int, generator: torch.Generator, bounds: tuple[float, float], *, shift: float = 1.0) -> Tensor:
    """Return `count` times of the training distribution restricted to `bounds`: exact, by its quantiles; float32."""
    if bounds == (0.0, 1.0):
        return sample_times(count, generator, shift=shift)
    ends = torch.tensor(bounds, dtype=torch.float64)
    low, high = torch.special.ndtr(torch.logit(shift_times(ends, 1 / shift).clamp(0, 1))).tolist()
    uniform = torch.rand(count, generator=generator, device=generator.device, dtype=torch.float64)
    # The ends themselves have probability 0, and at 0 and 1 no finite logit.
    probability = (low + (high - low) * uniform).clamp(1e-12, 1 - 1e-12)
    return shift_times(torch.special.ndtri(probability).sigmoid(), shift).float().clamp(*bounds)


def drop_captions(text_BLX: Tensor, empty_LX: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return texts of which each is the empty caption's with probability `share`, so that guidance has what to contrast."""
    dropped_B = torch.rand(text_BLX.shape[0], generator=generator, device=generator.device).to(text_BLX.device) < share
    return torch.where(dropped_B[:, None, None], empty_LX.to(text_BLX), text_BLX)


def shown_places(scenes_B: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return for each clip its own place or, with probability `share`, that of another clip of its scene in the batch [B]."""
    count = scenes_B.shape[0]
    places_B = torch.arange(count)
    others_BB = (scenes_B[:, None] == scenes_B[None, :]) & ~torch.eye(count, dtype=torch.bool)
    chance_BB = torch.rand(count, count, generator=generator, device=generator.device).cpu() * others_BB
    turned_B = torch.rand(count, generator=generator, device=generator.device).cpu() < share
    return torch.where(turned_B & others_BB.any(1), chance_BB.argmax(1), places_B)
