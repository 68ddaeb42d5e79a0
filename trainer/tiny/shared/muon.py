"""Muon for matrices and convolutions, AdamW for what is no matrix: gains, biases, embeddings, the last layer.

What that is worth on both stages is measured by benchmarks/tiny_training.py
(benchmarks/results/tiny_training.json). Keller Jordan and others, "Muon: An optimizer for hidden layers", 2024.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from trainer.tiny.shared.batched_muon import Muon
from trainer.tiny.shared.config import Optimizing


class HybridOptimizer(Optimizer):
    """The optimizers of one stage as one: a group a kind of parameter, each with a rate of its own."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], settings: Optimizing) -> None:
        plain = re.compile(settings.plain)
        matrices = {n: p for n, p in parameters.items() if settings.matrix_rate and _is_matrix(p) and not plain.search(n)}
        others = [p for name, p in parameters.items() if name not in matrices]
        made: list[Optimizer] = []
        for some, decay in (
            ([p for p in others if p.ndim > 1], settings.weight_decay),
            ([p for p in others if p.ndim <= 1], 0.0),
        ):
            if some:
                made.append(AdamW(some, lr=settings.rate, betas=settings.betas, weight_decay=decay, fused=True))
        if matrices:
            made.append(Muon(matrices.values(), lr=settings.matrix_rate))
        super().__init__([group for optimizer in made for group in optimizer.param_groups], {})
        self._inner = tuple(made)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Make one step."""
        for optimizer, group in zip(self._inner, self.param_groups, strict=True):
            optimizer.state = self.state  # which load_state_dict replaces, as it does the groups
            optimizer.param_groups = [group]
            optimizer.step()


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.ndim > 1 and parameter.shape[0] > 1 and parameter[0].numel() > 1
