"""The attention processors of an adapted backbone's cross-attention: with control tokens, and without.

Shapes: B batch, S video tokens (frame after frame), K context tokens (prefix + text), D model width, E embedding, P prefix
tokens, N control tokens, H heads, C head width, F latent frames with controls of their own (1: one control for all), G = B * F.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers.transformer_wan import WanAttention, WanAttnProcessor
from torch import Tensor, nn

from trainer.control.config import ControlConfig
from trainer.control.embedding import split_prefix

DOWN_STD = 0.01
UP_STD = 1e-4


class TextAttention(WanAttnProcessor):
    """Wan's own processor on the text alone: it takes away the `prefix` control tokens in front of it, if there are any."""

    def __init__(self) -> None:
        super().__init__()
        self.prefix = 0

    def __call__(
        self,
        attn: WanAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Return the cross-attention [B, S, D] of video tokens [B, S, D] over the text part of the context [B, K, D]."""
        if self.prefix:
            encoder_hidden_states, _ = split_prefix(encoder_hidden_states, self.prefix, hidden_states.dtype)
        return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb)


class Gate(nn.Module):
    """Scales the control attention by w * g: `ramp` is w, a buffer that the training loop sets; g is fixed or learned.

    A module of its own because offloading hooks every module that owns tensors and would move the arguments of the attention
    processor, among them the attention module itself.
    """

    def __init__(self, value: float, learned: bool) -> None:
        super().__init__()
        self.value: nn.Parameter | float = nn.Parameter(torch.tensor(value, dtype=torch.float32)) if learned else value
        self.ramp: Tensor
        self.register_buffer("ramp", torch.ones((), dtype=torch.float32), persistent=False)

    def forward(self, control_BSD: Tensor) -> Tensor:
        """Return the control attention times w * g, in its own dtype."""
        return (self.ramp * self.value).to(control_BSD.dtype) * control_BSD


class ControlAttention(nn.Module):
    """Text cross-attention plus control cross-attention with the same query (DESIGN section 4).

    `y = Attn(Q, K_text, V_text) + w * g * Attn(Q, K', V')`, then the block's output projection, where
    `K' = RMSNorm(key_up(key_down(e))) * alpha / rank` and `V' = value_up(value_down(e)) * alpha / rank` are `tokens` tokens of
    the model width. `prefix` counts the control's tokens in front of the text, of all `frames`; with `prefix` = 0 there is no
    control, bit for bit. With `frames` above 1 the video tokens of a latent frame attend to that frame's control alone.
    """

    # diffusers sets these on every processor that has them (`set_attention_backend`, context parallelism).
    _attention_backend: Any = None
    _parallel_config: Any = None

    def __init__(self, config: ControlConfig, width: int, eps: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.prefix, self.frames = 0, 1
        self.embed_dim = config.embed_dim
        self.tokens = config.tokens
        self.scale = config.alpha / config.rank
        self.key_down = nn.Linear(config.embed_dim, config.rank, bias=False, dtype=dtype)
        self.key_up = nn.Linear(config.rank, config.tokens * width, bias=False, dtype=dtype)
        self.key_norm = nn.RMSNorm(width, eps=eps, dtype=dtype)
        self.value_down = nn.Linear(config.embed_dim, config.rank, bias=False, dtype=dtype)
        self.value_up = nn.Linear(config.rank, config.tokens * width, bias=False, dtype=dtype)
        self.gate = Gate(config.gate_value, learned=config.gate == "learned")

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the down projections from N(0, 0.01) and the up projections from N(0, 1e-4)."""
        drawn = ((self.key_down, DOWN_STD), (self.key_up, UP_STD), (self.value_down, DOWN_STD), (self.value_up, UP_STD))
        for layer, std in drawn:
            layer.weight.copy_(torch.empty(layer.weight.shape).normal_(0.0, std, generator=generator))

    def control_tokens(self, prefix_GPD: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values [G, N, D] of the prefix tokens [G, P, D]."""
        embedding_GE = prefix_GPD.flatten(1)[:, : self.embed_dim].to(self.key_down.weight.dtype)
        key_GND = self.key_up(self.key_down(embedding_GE)).unflatten(1, (self.tokens, -1))
        value_GND = self.value_up(self.value_down(embedding_GE)).unflatten(1, (self.tokens, -1))
        key_GND = self.key_norm(key_GND.to(self.key_norm.weight.dtype))  # autocast may have narrowed it
        return key_GND * self.scale, value_GND * self.scale

    def forward(
        self,
        attn: WanAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Return the cross-attention [B, S, D] of video tokens [B, S, D] over control and text tokens [B, K, D]."""
        if not self.prefix:
            # Wan's own code, run with this processor's backend: not a bit may differ from the backbone.
            arguments = (attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb)
            return WanAttnProcessor.__call__(self, *arguments)
        text_BTD, prefix_BPD = split_prefix(encoder_hidden_states, self.prefix, hidden_states.dtype)
        query_BSD = attn.norm_q(attn.to_q(hidden_states))
        text_BSD = self._attend(attn, query_BSD, attn.norm_k(attn.to_k(text_BTD)), attn.to_v(text_BTD), attention_mask)
        query_GSD, prefix_GPD = (self._by_frame(part) for part in (query_BSD, prefix_BPD))
        key_GND, value_GND = self.control_tokens(prefix_GPD)
        control_GSD = self._attend(attn, query_GSD, key_GND.type_as(query_BSD), value_GND.type_as(query_BSD), None)
        control_BSD = control_GSD.reshape(query_BSD.shape)
        return attn.to_out[1](attn.to_out[0](text_BSD + self.gate(control_BSD)))

    def _by_frame(self, tokens_BKD: Tensor) -> Tensor:
        """Return tokens [B, F * K, D], frame after frame, as [G, K, D]."""
        return tokens_BKD if self.frames == 1 else tokens_BKD.unflatten(1, (self.frames, -1)).flatten(0, 1)

    def _attend(self, attn: WanAttention, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        query_BSHC, key_BKHC, value_BKHC = (part.unflatten(2, (attn.heads, -1)) for part in (query, key, value))
        attended_BSHC = dispatch_attention_fn(
            query_BSHC,
            key_BKHC,
            value_BKHC,
            attn_mask=mask,
            dropout_p=0.0,
            is_causal=False,
            backend=self._attention_backend,
            parallel_config=None,
        )
        return attended_BSHC.flatten(2, 3).type_as(query)
