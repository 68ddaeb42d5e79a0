"""The autoencoder's stage: first it is taught a linear code, then encoder and decoder do better together.

Shapes: B videos, T frames, H rows, W columns, 3 channels (RGB); C latent channels, t h w latent frames, rows, columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional
from diffusers import AutoencoderKLWan
from PIL import Image
from torch import Tensor, nn

from trainer.tiny.shared.clips import Clips, Entry, draw_windows
from trainer.tiny.shared.config import SHIPPED, Phase, VaeSettings
from trainer.tiny.shared.start import widened
from trainer.tiny.vae.linear_code import LinearCode, fit_linear_code
from trainer.tiny.vae.unchunked_vae import decode_latents, encode_moments
from trainer.weights.precision import autocast

TAUGHT_LOGVAR = -5.0
LOGVAR_RANGE = (-30.0, 20.0)  # as diffusers' DiagonalGaussianDistribution clips it


class VaeStage:
    """Trains an AutoencoderKLWan on random stretches of clips, mirrored in space and time.

    With `start`, a trained autoencoder, only its decoder goes on: its latents stay what they are, and so does whatever
    was trained on them.
    """

    def __init__(self, settings: VaeSettings, clips: Clips, start: AutoencoderKLWan | None = None) -> None:
        self.settings, self.clips = settings, clips
        self.phases = settings.phases
        self.vae = begun_vae(settings) if start is None else start.float().requires_grad_(True)
        if start is not None:
            start.encoder.requires_grad_(False)
            start.quant_conv.requires_grad_(False)
        self.module: nn.Module = self.vae
        self.channels = int(self.vae.config.z_dim)
        self.spread = torch.tensor(self.vae.config.latents_std).view(1, -1, 1, 1, 1)
        self.pools = {p.frames: clips.split("train", at_least=p.frames) for p in settings.phases}
        self.code = self._fit_code() if any(phase.linear for phase in settings.phases) else None
        compiled = settings.optimizing.compile
        self.terms = torch.compile(self._terms, dynamic=False) if compiled else self._terms
        self.taught = torch.compile(self._taught, dynamic=False) if compiled else self._taught

    def _fit_code(self) -> LinearCode:
        s = self.settings
        frames = max(phase.frames for phase in s.phases)
        windows = draw_windows(self.clips, self.pools[frames], frames, s.code_windows, np.random.default_rng(s.optimizing.seed))
        return fit_linear_code(to_video(windows), s.latent_channels, s.space, s.time)

    def batch(self, phase: Phase, rng: np.random.Generator) -> Mapping[str, Tensor]:
        """Return videos [B, 3, T, H, W] in [-1, 1]."""
        windows = draw_windows(self.clips, self.pools[phase.frames], phase.frames, phase.batch, rng)
        video, s = to_video(windows), self.settings
        shape = (
            phase.batch,
            self.channels,
            s.latent_frames(phase.frames),
            video.shape[3] // s.space,
            video.shape[4] // s.space,
        )
        made = {"video": video, "noise": torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))}
        if phase.linear:
            assert self.code is not None
            made["code"] = self.code.encode(video)
        return made

    def loss(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return mean absolute error, of pixels and of their differences, plus the weighted divergence from N(0, 1).

        Under a linear code: that error of the decoder alone, plus the encoder's squared error.
        """
        if "code" in batch:
            pixels, edges, code, squared = self.taught(batch["video"], batch["noise"], batch["code"])
            loss = pixels + self.settings.edges * edges + code
            return loss, {"pixels": pixels.detach(), "code": code.detach(), "mse": squared.detach()}
        pixels, edges, divergence, squared = self.terms(batch["video"], batch["noise"])
        loss = pixels + self.settings.edges * edges + self.settings.kl * divergence
        return loss, {"pixels": pixels.detach(), "divergence": divergence.detach(), "mse": squared.detach()}

    def _terms(self, video: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        with autocast():
            mean, logvar = encode_moments(self.vae, video).float().chunk(2, dim=1)
            logvar = logvar.clamp(*LOGVAR_RANGE)
            latents = mean + noise * (self.spread * self.settings.noise if self.settings.noise else torch.exp(0.5 * logvar))
            made = decode_latents(self.vae, latents)
        divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        pixels, edges, squared = self._errors(made.float(), video)
        return pixels, edges, divergence, squared

    def _taught(self, video: Tensor, noise: Tensor, code: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        with autocast():
            mean, logvar = encode_moments(self.vae, video).float().chunk(2, dim=1)
            made = decode_latents(self.vae, code + noise * math.exp(0.5 * TAUGHT_LOGVAR))
        wrong = (mean - code).square().mean() + 0.01 * (logvar - TAUGHT_LOGVAR).square().mean()
        pixels, edges, squared = self._errors(made.float(), video)
        return pixels, edges, wrong, squared

    def _errors(self, made: Tensor, video: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the mean absolute error, that of edges and of their energy in small windows, and the mean squared error."""
        error = made - video
        edges = error.diff(dim=3).abs().mean() + error.diff(dim=4).abs().mean()
        if self.settings.sharpness:
            wrong = [(_energy(made.diff(dim=dim)) - _energy(video.diff(dim=dim))).abs().mean() for dim in (3, 4)]
            edges = edges + self.settings.sharpness * torch.stack(wrong).sum()
        return error.abs().mean(), edges, error.square().mean()

    def validate(self, step: int, folder: Path) -> dict[str, float]:
        """Return the PSNR of held-out clips, whole, and draw some of them beside their reconstructions."""
        held = self.clips.split("validation", at_least=5)[:48]
        measured = {"psnr_db": float(np.mean(psnr_of(self.vae, self.clips, held)))}
        save_comparison(self.vae, self.clips, held[:8], folder / f"grid-{step:06d}.png")
        return measured


def _energy(edges_BCTHW: Tensor) -> Tensor:
    """Return the root mean square of edges in windows of 5 x 5: how sharp a place is, wherever in it the edge lies."""
    squares = edges_BCTHW.square().transpose(1, 2).flatten(0, 1)
    return (functional.avg_pool2d(squares, 5, 1, 2, count_include_pad=False) + 1e-4).sqrt()


def begun_vae(settings: VaeSettings) -> AutoencoderKLWan:
    """Return what training begins with."""
    if settings.start == "nothing":
        return build_vae(settings)
    return widened(AutoencoderKLWan.from_pretrained(SHIPPED, subfolder="vae").float(), settings.latent_channels)


def build_vae(settings: VaeSettings) -> AutoencoderKLWan:
    """Return the autoencoder before training: the kernels' last plane full, the earlier ones faint, time copied through.

    So that what the stills teach holds for clips from their first step.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(settings.optimizing.seed)
        vae = AutoencoderKLWan(**settings.pipeline_config())
        for name, layer in vae.named_modules():
            if isinstance(layer, nn.Conv3d) and layer.kernel_size[0] == 3:
                layer.weight[:, :, :2] *= 0.3
                layer.weight[:, :, 2] *= 3**0.5 if layer.kernel_size[1] == 3 else 0.3
                if name.endswith("time_conv"):
                    out, into = layer.weight.shape[:2]
                    layer.weight[:, :, 2, 0, 0] += torch.eye(into).repeat(out // into, 1)
                layer.weight.data = layer.weight.contiguous(memory_format=torch.channels_last_3d)
            elif isinstance(layer, nn.Conv2d):
                layer.weight.data = layer.weight.contiguous(memory_format=torch.channels_last)
            if name.endswith(("conv2", "proj")):  # every residual branch begins at nothing
                layer.weight.zero_()
                layer.bias.zero_()
    return vae


def to_video(frames_BTHW3: np.ndarray) -> Tensor:
    """Return bytes [B, T, H, W, 3] as a video [B, 3, T, H, W] in [-1, 1], float32."""
    return torch.tensor(np.ascontiguousarray(frames_BTHW3)).permute(0, 4, 1, 2, 3).float().div(127.5).sub(1)


@torch.no_grad()
def reconstruct(vae: AutoencoderKLWan, frames_THW3: np.ndarray) -> np.ndarray:
    """Return a clip's frames through the autoencoder's mean, uint8 [T, H, W, 3]."""
    moments = encode_moments(vae, to_video(frames_THW3[None]))
    made_3THW = decode_latents(vae, moments.chunk(2, dim=1)[0])[0].clamp(-1, 1)
    return made_3THW.add(1).mul(127.5).round().to(torch.uint8).permute(1, 2, 3, 0).numpy()


def psnr_of(vae: AutoencoderKLWan, clips: Clips, entries: tuple[Entry, ...]) -> list[float]:
    """Return the PSNR of each clip's reconstruction, decibels."""
    values = []
    for entry in entries:
        frames = clips.video(entry)
        error = reconstruct(vae, frames).astype(np.float64) - frames
        values.append(10 * np.log10(255**2 / max(np.mean(error**2), 1e-9)))
    return values


def save_comparison(vae: AutoencoderKLWan, clips: Clips, entries: tuple[Entry, ...], path: Path) -> None:
    """Draw clips above their reconstructions, frames from left to right, doubled in size."""
    rows = []
    for entry in entries:
        frames = clips.video(entry)[:5]
        for row in (frames, reconstruct(vae, frames)):
            rows.append(np.concatenate(list(row), axis=1))
    grid = np.concatenate(rows, axis=0)
    half = len(rows) // 2 * frames.shape[1]
    wide = np.concatenate([grid[:half], grid[half : 2 * half]], axis=1)
    Image.fromarray(wide.repeat(2, 0).repeat(2, 1)).save(path)
