"""The autoencoder's latents turned so that the first holds most of the picture and the last least, and the last left out.

A divergence from N(0, 1) makes all latents equally loud, whatever they are worth: of 32, one held 78 % of the picture's
variance and the last twelve 0.2 %. A transformer that is asked for all alike learns noise first and what a caption says last.
Here latents are measured by the change they make to the picture, turned to their principal axes in that measure, and cut. All
of it folds into the layers next to the latents; the decoder has to be trained a little afterwards (the stage `decoder`).

Shapes: B videos, C latent channels before, K after, t h w latent frames, rows, columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from trainer.tiny.shared.clips import Clips
from trainer.tiny.vae.unchunked_vae import decode_latents, encode_moments
from trainer.tiny.vae.vae_stage import LOGVAR_RANGE, to_video

PROBE = 0.1  # how far latents are moved to see what the picture does
LEAST = 1e-6  # of the measure's eigenvalues: what changes no pixel cannot be turned back


@dataclass(frozen=True)
class Axes:
    """The mean latent [C], the way to the axes [K, C] and back [C, K], and the standard deviation along each [K], in pixels."""

    mean_C: Tensor
    to_KC: Tensor
    back_CK: Tensor
    std_K: Tensor


@torch.no_grad()
def measured_axes(vae: AutoencoderKLWan, clips: Clips, kept: int, count: int = 24, seed: int = 0) -> Axes:
    """Return the axes of `kept` latents over some training clips of at least 9 frames."""
    entries = clips.split("train", at_least=9)
    generator = torch.Generator().manual_seed(seed)
    metric_CC, found = torch.zeros(vae.config.z_dim, vae.config.z_dim), []
    chosen = entries[:: max(1, len(entries) // count)][:count]
    for entry in chosen:
        video = to_video(clips.video(entry)[None])
        latents_1Cthw = encode_moments(vae, video).chunk(2, dim=1)[0]
        found.append(latents_1Cthw[0].flatten(1))
        metric_CC += _metric(vae, latents_1Cthw, generator) / len(chosen)
    flat = torch.cat(found, dim=1)
    worth, turned = torch.linalg.eigh(metric_CC)
    root = worth.clamp(min=LEAST).sqrt()
    into, out = turned @ torch.diag(root) @ turned.T, turned @ torch.diag(1 / root) @ turned.T
    variance, axes = torch.linalg.eigh(into @ torch.cov(flat) @ into)
    axes_CK = axes.flip(1)[:, :kept]
    return Axes(flat.mean(1), axes_CK.T @ into, out @ axes_CK, variance.flip(0)[:kept].clamp(min=0).sqrt())


def _metric(vae: AutoencoderKLWan, latents_1Cthw: Tensor, generator: torch.Generator) -> Tensor:
    """Return what pairs of channels do to the picture [C, C]: the mean product of its changes where both are moved."""
    signs = torch.randint(0, 2, latents_1Cthw[:, :1].shape, generator=generator) * 2.0 - 1
    before, rows = decode_latents(vae, latents_1Cthw), []
    for channel in range(latents_1Cthw.shape[1]):
        moved = latents_1Cthw.clone()
        moved[:, channel] += PROBE * signs[:, 0]
        rows.append(((decode_latents(vae, moved) - before) / PROBE).flatten())
    changes = torch.stack(rows)
    return changes @ changes.T / signs.numel()


@torch.no_grad()
def with_latent_pca(vae: AutoencoderKLWan, axes: Axes, spectrum: float, loudest: float) -> AutoencoderKLWan:
    """Return the autoencoder of the latents along some axes.

    Normalised by the statistics in its configuration, an axis has its standard deviation to the power of `spectrum`, scaled so
    that the first has `loudest`.
    """
    kept = len(axes.std_K)
    loudness = axes.std_K.clamp(min=LEAST) ** (1 - spectrum)
    std = loudness * (axes.std_K[0] ** spectrum / loudest)
    config = {name: value for name, value in vae.config.items() if not name.startswith("_")}
    config |= {"z_dim": kept, "latents_mean": [0.0] * kept, "latents_std": std.tolist()}
    small = AutoencoderKLWan(**config)
    changed = ("encoder.conv_out", "quant_conv", "post_quant_conv", "decoder.conv_in")
    state = {name: value for name, value in vae.state_dict().items() if not name.startswith(changed)}
    missing, unexpected = small.load_state_dict(state, strict=False)
    assert not unexpected and all(name.startswith(changed) for name in missing)
    _fold_encoder(vae, small, axes)
    _fold_decoder(vae, small, axes)
    return small.eval()


def _fold_encoder(vae: AutoencoderKLWan, small: AutoencoderKLWan, axes: Axes) -> None:
    """The mean goes to the axes; the logarithm of the variance becomes a constant, as of independent channels on average."""
    kept = len(axes.std_K)
    quant = vae.quant_conv.weight[: vae.config.z_dim, :, 0, 0, 0]
    weight = torch.einsum("kc,cj,jixyz->kixyz", axes.to_KC, quant, vae.encoder.conv_out.weight)
    bias = axes.to_KC @ (quant @ vae.encoder.conv_out.bias + vae.quant_conv.bias[: vae.config.z_dim] - axes.mean_C)
    faint = torch.full((kept,), LOGVAR_RANGE[0] / 4)
    small.encoder.conv_out.weight.copy_(torch.cat([weight, torch.zeros_like(weight)]))
    small.encoder.conv_out.bias.copy_(torch.cat([bias, faint]))
    _set_identity(small.quant_conv)


def _fold_decoder(vae: AutoencoderKLWan, small: AutoencoderKLWan, axes: Axes) -> None:
    """Latents come back from the axes; what is constant goes into the bias, which is exact but at the clip's borders."""
    post = vae.post_quant_conv.weight[:, :, 0, 0, 0]
    first = vae.decoder.conv_in
    constant = post @ axes.mean_C + vae.post_quant_conv.bias
    small.decoder.conv_in.weight.copy_(torch.einsum("ocxyz,cj,jk->okxyz", first.weight, post, axes.back_CK))
    small.decoder.conv_in.bias.copy_(first.bias + first.weight.sum(dim=(2, 3, 4)) @ constant)
    _set_identity(small.post_quant_conv)


def _set_identity(conv: torch.nn.Module) -> None:
    weight, bias = conv.weight, conv.bias
    assert isinstance(weight, Tensor) and isinstance(bias, Tensor)
    weight.zero_()
    weight[:, :, 0, 0, 0].copy_(torch.eye(len(bias)))
    bias.zero_()
