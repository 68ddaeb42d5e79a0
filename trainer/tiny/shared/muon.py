"""Muon for matrices and convolutions, AdamW for what is no matrix: gains, biases, embeddings, the last layer.

What that is worth on both stages is measured by benchmarks/tiny_training.py
(benchmarks/results/tiny_training.json). Keller Jordan and others, "Muon: An optimizer for hidden layers", 2024.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import AdamW

from trainer.tiny.shared.batched_muon import Muon
from trainer.tiny.shared.config import Optimizing


class HybridOptimizer:
    """The optimizers of one stage as one: both follow the same schedule, each from its own rate."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], settings: Optimizing) -> None:
        plain = re.compile(settings.plain)
        matrices = {n: p for n, p in parameters.items() if settings.matrix_rate and _is_matrix(p) and not plain.search(n)}
        others = {name: p for name, p in parameters.items() if name not in matrices}
        groups = [
            {"params": [p for p in others.values() if p.ndim > 1], "weight_decay": settings.weight_decay},
            {"params": [p for p in others.values() if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.parameters = list(parameters.values())
        self.adamw = AdamW([g for g in groups if g["params"]], lr=settings.rate, betas=settings.betas, fused=True)
        # Muon takes matrices only; a view of a convolution is one, and shares its memory.
        self.views = [(p, nn.Parameter(_as_matrix(p.detach()))) for p in matrices.values()]
        self.muon = Muon([view for _, view in self.views]) if self.views else None
        self.rates = (settings.rate, settings.matrix_rate)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def step(self, share: float) -> None:
        """Make one step at `share` of the full rates."""
        for group in self.adamw.param_groups:
            group["lr"] = self.rates[0] * share
        self.adamw.step()
        if self.muon is not None:
            for parameter, view in self.views:
                view.grad = None if parameter.grad is None else _as_matrix(parameter.grad, like=parameter)
            self.muon.step(self.rates[1] * share)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"adamw": self.adamw.state_dict(), "muon": None if self.muon is None else self.muon.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.adamw.load_state_dict(state["adamw"])
        if self.muon is not None:
            self.muon.load_state_dict(state["muon"])


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.ndim > 1 and parameter.shape[0] > 1 and parameter[0].numel() > 1


def _as_matrix(tensor: Tensor, like: Tensor | None = None) -> Tensor:
    """Return [out, the rest], its columns in the order in which `like` (or the tensor) lies in memory."""
    strides = (tensor if like is None else like).stride()
    order = sorted(range(1, tensor.ndim), key=lambda dim: -strides[dim])
    return tensor.permute(0, *order).flatten(1)
