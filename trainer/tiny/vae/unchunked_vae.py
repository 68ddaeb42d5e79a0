"""The autoencoder on whole clips at once: the same numbers as diffusers' frame by frame passes, several times faster.

diffusers' AutoencoderKLWan walks a clip in chunks of 1, 4, 4, … frames and keeps each convolution's last frames between them,
which bounds memory and starves a CPU. Here every layer sees the whole clip; a still uses only the last plane of each kernel,
because the others would meet zeros. Only the residual form (Wan 2.2's) is covered, halved in time once or twice.

Shapes: B videos, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor, nn
from torch.nn import functional as F


def encode_moments(vae: AutoencoderKLWan, video_BCTHW: Tensor) -> Tensor:
    """Return the posterior's mean and log-variance [B, 2z, t, h, w] of videos in [-1, 1] of 4n + 1 frames."""
    encoder = vae.encoder
    x = _conv(encoder.conv_in, _fold(video_BCTHW, vae.config.patch_size))
    for block in encoder.down_blocks:
        shortcut = block.avg_shortcut(x)
        for resnet in block.resnets:
            x = _residual(resnet, x)
        if block.downsampler is not None:
            x = _down(block.downsampler, x)
        x = x + shortcut
    return _conv(vae.quant_conv, _head(encoder, _middle(encoder.mid_block, x)))


def decode_latents(vae: AutoencoderKLWan, latents_BCTHW: Tensor) -> Tensor:
    """Return the videos [B, 3, T, H, W] of latents that are not normalised; unlike `vae.decode` they are not clipped."""
    decoder = vae.decoder
    x = _conv(decoder.conv_in, _conv(vae.post_quant_conv, latents_BCTHW))
    x = _middle(decoder.mid_block, x)
    for block in decoder.up_blocks:
        shortcut = block.avg_shortcut(x, first_chunk=True) if block.avg_shortcut is not None else None
        for resnet in block.resnets:
            x = _residual(resnet, x)
        if block.upsampler is not None:
            x = _up(block.upsampler, x)
        x = x if shortcut is None else x + shortcut
    return _unfold(_head(decoder, x), vae.config.patch_size)


def _fold(x: Tensor, patch: int) -> Tensor:
    """Return patches as channels, in diffusers' order: channel, then column, then row within the patch."""
    b, c, t, h, w = x.shape
    x = x.view(b, c, t, h // patch, patch, w // patch, patch).permute(0, 1, 6, 4, 2, 3, 5)
    return x.reshape(b, c * patch * patch, t, h // patch, w // patch)


def _unfold(x: Tensor, patch: int) -> Tensor:
    b, c, t, h, w = x.shape
    x = x.reshape(b, c // patch**2, patch, patch, t, h, w).permute(0, 1, 4, 5, 3, 6, 2)
    return x.reshape(b, c // patch**2, t, h * patch, w * patch)


def _conv(conv: Any, x: Tensor) -> Tensor:
    """Return a causal convolution of a clip that begins at its first frame."""
    kernel = conv.weight.shape[2]
    space = (conv.weight.shape[3] // 2, conv.weight.shape[4] // 2)
    if x.shape[2] == 1:
        return F.conv2d(x[:, :, 0], conv.weight[:, :, -1], conv.bias, padding=space).unsqueeze(2)
    if kernel > 1:
        x = F.pad(x, (0, 0, 0, 0, kernel - 1, 0))
    return F.conv3d(x, conv.weight, conv.bias, padding=(0, *space))


def _norm(norm: Any, x: Tensor) -> Tensor:
    scale = torch.rsqrt(x.float().square().mean(1, keepdim=True) + 1e-12)
    return (x * scale * norm.gamma.view(1, -1, 1, 1, 1)).to(x.dtype)


def _residual(block: Any, x: Tensor) -> Tensor:
    shortcut = x if isinstance(block.conv_shortcut, nn.Identity) else _conv(block.conv_shortcut, x)
    x = _conv(block.conv1, F.silu(_norm(block.norm1, x)))
    return shortcut + _conv(block.conv2, F.silu(_norm(block.norm2, x)))


def _middle(block: Any, x: Tensor) -> Tensor:
    x = _residual(block.resnets[0], x)
    for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
        x = _residual(resnet, attention(x))
    return x


def _head(part: Any, x: Tensor) -> Tensor:
    return _conv(part.conv_out, F.silu(_norm(part.norm_out, x)))


def _by_frame(layer: nn.Module, x: Tensor) -> Tensor:
    b, c, t, h, w = x.shape
    y = layer(x.transpose(1, 2).reshape(b * t, c, h, w))
    return y.view(b, t, *y.shape[1:]).transpose(1, 2)


def _down(layer: Any, x: Tensor) -> Tensor:
    x = _by_frame(layer.resample, x)
    if layer.mode == "downsample2d" or x.shape[2] == 1:
        return x
    later = F.conv3d(x, layer.time_conv.weight, layer.time_conv.bias, stride=(2, 1, 1))
    return torch.cat([x[:, :, :1], later], dim=2)


def _up(layer: Any, x: Tensor) -> Tensor:
    if layer.mode == "upsample3d" and x.shape[2] > 1:
        b, c, t, h, w = x.shape
        later = F.conv3d(F.pad(x[:, :, 1:], (0, 0, 0, 0, 2, 0)), layer.time_conv.weight, layer.time_conv.bias)
        later = later.view(b, 2, c, t - 1, h, w).permute(0, 2, 3, 1, 4, 5).reshape(b, c, 2 * (t - 1), h, w)
        x = torch.cat([x[:, :, :1], later], dim=2)
    return _by_frame(layer.resample, x)
