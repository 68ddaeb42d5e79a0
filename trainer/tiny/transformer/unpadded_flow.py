"""The transformer's forward pass as diffusers makes it, but without its 512 text tokens: padding counts instead of being there.

Wan pads text with zeros to 512 tokens and masks nothing. All padding tokens have the same key and value, so n of them weigh in
the softmax as one whose logit has log n added. With captions of 20 to 50 tokens that saves nine tenths of the text's cost, and
the numbers are the same (`tests/trainer/tiny/test_tiny_model.py`).

Shapes: B videos, C latent channels, T latent frames, H rows, W columns, S video tokens, L text tokens, X text width, D model
width, N heads, K head width.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor
from torch.nn import functional as F


def padding_bias(lengths_B: Tensor, held: int, padded: Tensor | int) -> Tensor:
    """Return the logits to add [B, L]: 0 for real tokens; the padding held here weighs as all of that in `padded` tokens.

    `held` must be longer than every length. `padded` is the length whose zero padding is meant, one or one per video.
    """
    position_L = torch.arange(held, device=lengths_B.device)
    weight_B = ((padded - lengths_B) / (held - lengths_B)).float().log()
    return torch.where(position_L >= lengths_B[:, None], weight_B[:, None], 0.0)


def velocity(
    model: WanTransformer3DModel, noisy_BCTHW: Tensor, model_times_B: Tensor, text_BLX: Tensor, bias_BL: Tensor
) -> Tensor:
    """Return the velocity [B, C, T, H, W]; `text_BLX` has at least one row of zeros after each caption's tokens."""
    b, _, t, h, w = noisy_BCTHW.shape
    _, ph, pw = model.config.patch_size
    cos, sin = (freqs[0, :, 0, ::2] for freqs in model.rope(noisy_BCTHW))  # [S, K / 2]: each value stands twice
    x_BSD = _embed_patches(model, noisy_BCTHW)
    temb_BD, modulation, text_BLD, _ = model.condition_embedder(model_times_B, text_BLX, None)
    modulation_B6D = modulation.unflatten(1, (6, -1)).float()
    mask = bias_BL[:, None, None, :]
    for block in model.blocks:
        x_BSD = _block(block, x_BSD, text_BLD, modulation_B6D, (cos, sin), mask)
    shift, scale = (model.scale_shift_table + temb_BD.float().unsqueeze(1)).chunk(2, dim=1)
    out = model.proj_out(_normed(x_BSD, scale, shift, model.config.eps))
    out = out.view(b, t, h // ph, w // pw, ph, pw, -1).permute(0, 6, 1, 2, 4, 3, 5)
    return out.reshape(b, -1, t, h, w)


def _embed_patches(model: Any, noisy_BCTHW: Tensor) -> Tensor:
    """Return the patch embedding as a matrix product: a convolution whose stride is its kernel."""
    b, c, t, h, w = noisy_BCTHW.shape
    _, ph, pw = model.config.patch_size
    patches = noisy_BCTHW.view(b, c, t, h // ph, ph, w // pw, pw).permute(0, 2, 3, 5, 1, 4, 6)
    weight = model.patch_embedding.weight.flatten(1)
    return F.linear(patches.reshape(b, t * (h // ph) * (w // pw), c * ph * pw), weight, model.patch_embedding.bias)


def _normed(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    normed = F.layer_norm(x.float(), x.shape[-1:], eps=eps)
    return (normed * (1 + scale) + shift).to(x.dtype)


def _heads(x_BLD: Tensor, heads: int) -> Tensor:
    return x_BLD.unflatten(2, (heads, -1)).transpose(1, 2)


def _rms(norm: Any, x: Tensor) -> Tensor:
    x32 = x.float()
    return (x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + norm.eps) * norm.weight).to(x.dtype)


def _rotate(x_BNSK: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = turn
    even, odd = x_BNSK.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2).to(x_BNSK.dtype)


def _attend(attn: Any, x: Tensor, context: Tensor, turn: tuple[Tensor, Tensor] | None, mask: Tensor | None) -> Tensor:
    q = _heads(_rms(attn.norm_q, attn.to_q(x)), attn.heads)
    k = _heads(_rms(attn.norm_k, attn.to_k(context)), attn.heads)
    v = _heads(attn.to_v(context), attn.heads)
    if turn is not None:
        q, k = _rotate(q, turn), _rotate(k, turn)
    mixed = F.scaled_dot_product_attention(q, k, v, None if mask is None else mask.to(q.dtype))
    return attn.to_out[0](mixed.transpose(1, 2).flatten(2))


def _block(block: Any, x: Tensor, text: Tensor, modulation_B6D: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
    shift, scale, gate, late_shift, late_scale, late_gate = (block.scale_shift_table + modulation_B6D).chunk(6, dim=1)
    normed = _normed(x, scale, shift, block.norm1.eps)
    x = (x.float() + _attend(block.attn1, normed, normed, turn, None) * gate).to(x.dtype)
    queries = F.layer_norm(x.float(), x.shape[-1:], block.norm2.weight, block.norm2.bias, block.norm2.eps).to(x.dtype)
    x = x + _attend(block.attn2, queries, text, None, mask)
    normed = _normed(x, late_scale, late_shift, block.norm3.eps)
    return (x.float() + block.ffn(normed).float() * late_gate).to(x.dtype)
