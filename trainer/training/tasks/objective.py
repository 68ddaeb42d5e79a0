"""Rectified flow (DESIGN section 4): x_t = (1 - t) x + t eps, target eps - x, t logit-normal with an optional shift.

Shapes: B batch, C latent channels, T latent frames, H rows, W columns, S video tokens, L text tokens, X text width, A axes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from scenes.errors import InputError
from trainer.control import CONTROLS


def shift_times(times: Tensor, shift: float) -> Tensor:
    """Return times moved towards noise: s t / (1 + (s - 1) t), as Wan's schedulers do at inference; 1 changes nothing.

    `times` is a tensor `[B]` in [0, 1]. Raises InputError for a shift that is not positive.
    """
    if not shift > 0:
        raise InputError(f"shift {shift:g} is impossible; give a number above 0, 1 for none")
    return shift * times / (1 + (shift - 1) * times)


def sample_times(count: int, generator: torch.Generator, *, shift: float = 1.0) -> Tensor:
    """Return `count` times in (0, 1), logit-normal(0, 1) and shifted, float32 on the generator's device."""
    normal = torch.randn(count, generator=generator, device=generator.device)
    return shift_times(normal.sigmoid(), shift)


def fixed_times(count: int, *, shift: float = 1.0) -> Tensor:
    """Return the midpoints of `count` equal slices of the training distribution, ascending: times for validation."""
    probability = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    normal = torch.special.ndtri(probability)
    return shift_times(normal.sigmoid(), shift).float()


def fixed_noise(shape: tuple[int, ...], name: str) -> Tensor:
    """Return float32 noise that depends on a name (a clip's id) only, on the CPU."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def mix(latents_BCTHW: Tensor, noise_BCTHW: Tensor, times_B: Tensor) -> Tensor:
    """Return x_t in float32."""
    t = times_B.float().view(-1, 1, 1, 1, 1)
    return (1 - t) * latents_BCTHW.float() + t * noise_BCTHW.float()


def flow_losses(prediction_BCTHW: Tensor, latents_BCTHW: Tensor, noise_BCTHW: Tensor) -> Tensor:
    """Return the mean squared error of each video's velocity [B], computed in float32."""
    error = prediction_BCTHW.float() - (noise_BCTHW.float() - latents_BCTHW.float())
    return error.square().flatten(1).mean(1)


def contrasted_losses(
    prediction_BCTHW: Tensor, latents_BCTHW: Tensor, noise_BCTHW: Tensor, scenes_B: Tensor, contrast: float
) -> Tensor:
    """Return losses [B] in which what a clip's error has apart from its scene's mean error counts `contrast` times.

    `scenes_B` numbers the scenes. Clips of one under the same noise share what the network cannot know, which is most of the
    error; what is left is what the control has to explain. With a contrast of 1 these are `flow_losses` but for how a scene's
    error is spread over its clips.
    """
    error = (prediction_BCTHW.float() - (noise_BCTHW.float() - latents_BCTHW.float())).flatten(1)
    same_BB = (scenes_B[:, None] == scenes_B[None, :]).to(error)
    shared = (same_BB / same_BB.sum(1, keepdim=True)) @ error
    return shared.square().mean(1) + contrast * (error - shared).square().mean(1)


def counterfactual_noise(latents_BCTHW: Tensor, noise_BCTHW: Tensor, times_B: Tensor, shown_B: Tensor) -> Tensor:
    """Return noise under which x_t shows, instead of each clip, the clip at a place `shown_B` of the batch.

    x_t = (1 - t) x + t eps' = (1 - t) x_shown + t eps. Below t = 1/2 that noise would grow without bound: there the weight of
    the difference stays 1, and x_t shows a mixture.
    """
    weight = ((1 - times_B.float()) / times_B.float()).clamp(max=1.0).view(-1, 1, 1, 1, 1)
    return noise_BCTHW.float() + weight * (latents_BCTHW[shown_B].float() - latents_BCTHW.float())


def model_times(
    times_B: Tensor, latents_BCTHW: Tensor, patch_size: tuple[int, int, int], *, per_token: bool, steps: int = 1000
) -> Tensor:
    """Return the timesteps that Wan's transformer takes: t * steps, [B], or one per video token [B, S] for Wan2.2 TI2V."""
    scaled_B = times_B.float() * steps
    if not per_token:
        return scaled_B
    tokens = 1
    for size, patch in zip(latents_BCTHW.shape[2:], patch_size, strict=True):
        tokens *= size // patch
    return scaled_B[:, None].expand(-1, tokens)


def predict_velocity(
    transformer: Callable[..., Any],
    noisy_BCTHW: Tensor,
    model_times: Tensor,
    text_BLX: Tensor,
    controls_BA: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """Return the transformer's velocity [B, C, T, H, W] under controls; inputs are cast to `dtype`, token ids are not."""
    extra: dict[str, Any] = {} if controls_BA is None else {"attention_kwargs": {CONTROLS: controls_BA}}
    return transformer(
        hidden_states=noisy_BCTHW.to(dtype),
        timestep=model_times,
        encoder_hidden_states=text_BLX.to(dtype) if text_BLX.is_floating_point() else text_BLX,
        return_dict=False,
        **extra,
    )[0]
