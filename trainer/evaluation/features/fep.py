"""The fast evaluation (FEP): how far an adapter moves the backbone, seen after one denoising step from the same noise.

At t = 1 a rectified flow's velocity v gives the whole picture at once, x = noise - v: blurred, but where prior and adapter part
is already there, at a fortieth of the cost of sampling. Source: arXiv 2511.17844, fast evaluation.

Shapes: N videos, T frames, H rows, W columns, 3 channels (sRGB), C latent channels, t h w latent size, A axes, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scenes.arrays import Bytes, Floats
from trainer.backbones.load import experts
from trainer.evaluation.features.distances import frechet_distance, paired_similarity, variance_ratio
from trainer.evaluation.features.extractors import VideoFeatures
from trainer.generation.sampler import Sampling, check_sampling, encode_text, to_bytes
from trainer.pipelines.controlled_wan import ControlledWan
from trainer.training.tasks.objective import model_times, predict_velocity


@dataclass(frozen=True, kw_only=True)
class FastScores:
    """SSF, SS-FD and DVS of one set of videos against another, by a named extractor."""

    ssf: float
    ss_fd: float
    dvs: float
    extractor: str
    videos: int


@torch.no_grad()
def one_step(
    pipe: ControlledWan, prompt: str, controls_A: Sequence[float], *, mode: str, seed: int, sampling: Sampling
) -> Bytes:
    """Return the video [T, H, W, 3] that one step from pure noise gives, without guidance.

    Raises InputError for a size that the backbone cannot take and a mode that the adapter lacks.
    """
    check_sampling(pipe, sampling)
    transformer = next(iter(experts(pipe).values()))
    place, dtype = pipe._execution_device, transformer.dtype
    for adapter in pipe.adapters.values():
        if (adapter.mode, adapter.strength) != (mode, 1.0):
            adapter.set_mode(mode)
    text = encode_text(pipe, prompt, "", replace(sampling, guidance=1.0, control_guidance=1.0))["prompt_embeds"]
    noise_1Cthw = pipe.prepare_latents(
        1,
        transformer.config.in_channels,
        sampling.height,
        sampling.width,
        sampling.frames,
        torch.float32,
        place,
        torch.Generator("cpu").manual_seed(seed),
    )
    per_token = bool(pipe.config.expand_timesteps)
    times = model_times(torch.ones(1, device=place), noise_1Cthw, tuple(transformer.config.patch_size), per_token=per_token)
    controls_1A = torch.tensor([list(controls_A)], dtype=torch.float32, device=place) if controls_A else None
    velocity_1Cthw = predict_velocity(transformer, noise_1Cthw, times, text, controls_1A, dtype)
    return decode_latents(pipe, noise_1Cthw - velocity_1Cthw.float())


@torch.no_grad()
def decode_latents(pipe: ControlledWan, latents_1Cthw: Tensor) -> Bytes:
    """Return the frames [T, H, W, 3] of normalised latents."""
    vae = pipe.vae
    shape = (1, -1, 1, 1, 1)
    mean = torch.tensor(vae.config.latents_mean, device=latents_1Cthw.device).view(shape)
    std = torch.tensor(vae.config.latents_std, device=latents_1Cthw.device).view(shape)
    video_13THW = vae.decode((latents_1Cthw * std + mean).to(vae.dtype)).sample
    return to_bytes(pipe.video_processor.postprocess_video(video_13THW, output_type="np"))[0]


def compare(ours_ND: Floats, backbone_ND: Floats, features: VideoFeatures) -> FastScores:
    """Return how far our videos are from the backbone's; raises InputError for too few for a Fréchet distance."""
    return FastScores(
        ssf=paired_similarity(ours_ND, backbone_ND),
        ss_fd=frechet_distance(ours_ND, backbone_ND),
        dvs=variance_ratio(ours_ND, backbone_ND),
        extractor=features.name,
        videos=len(ours_ND),
    )
