"""The control embedding, and how its result travels to the blocks: as extra tokens in front of the text.

Wan's transformer puts the output of `condition_embedder.image_embedder` in front of the text tokens, and a text-to-video
backbone leaves that place empty. The embedding stands there, so the controls reach every block as an ordinary argument:
nothing is stored between calls, and gradient checkpointing replays a block with the very same tokens.

Shapes: B batch, A axes, E embedding, D model width, P prefix tokens of one frame (the E values, zero-padded to whole tokens), F
latent frames that have controls of their own (1 where one control serves the whole video), T text tokens, K = F * P + T.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def prefix_length(embed_dim: int, width: int) -> int:
    """Return how many tokens of the model width hold an embedding."""
    return -(-embed_dim // width)


class ControlEmbedding(nn.Module):
    """Linear(A, hidden), SiLU, Linear(hidden, E), the last layer zero at first; returned as prefix tokens.

    Its parameters stay in float32 whatever the backbone's dtype, so that a control is not rounded.
    """

    def __init__(self, axes: int, hidden_dim: int, embed_dim: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.prefix = prefix_length(embed_dim, width)
        self.padding = self.prefix * width - embed_dim
        self.lin1 = nn.Linear(axes, hidden_dim, dtype=torch.float32)
        self.lin2 = nn.Linear(hidden_dim, embed_dim, dtype=torch.float32)

    def forward(self, controls_BFA: Tensor) -> Tensor:
        """Return the prefix tokens [B, F * P, D], frame after frame, of controls [B, F, A], or [B, P, D] of controls [B, A]."""
        embedding_BFE = self.lin2(F.silu(self.lin1(controls_BFA.to(self.lin1.weight.dtype))))
        return F.pad(embedding_BFE, (0, self.padding)).unflatten(-1, (self.prefix, self.width)).flatten(1, -2)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the first layer from U(-1/sqrt(A), 1/sqrt(A)), torch's default for a Linear, and zero the last."""
        bound = self.lin1.in_features**-0.5
        for parameter in (self.lin1.weight, self.lin1.bias):
            parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))
        self.lin2.weight.zero_()
        self.lin2.bias.zero_()


def split_prefix(context_BKD: Tensor, prefix: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the text tokens [B, T, D] in `dtype`, without gradient, and the prefix tokens [B, P, D].

    The text comes out contiguous, exactly as it was before the prefix was put in front: concatenation may have widened its
    dtype, and a projection of a strided tensor may take another kernel and differ in the last bit. Concatenation also makes
    it look as if the text wanted a gradient; nothing before it trains, and each block would work one out in vain.
    """
    text_BTD = context_BKD.detach()[:, prefix:].to(dtype).contiguous()
    return text_BTD, context_BKD[:, :prefix]
