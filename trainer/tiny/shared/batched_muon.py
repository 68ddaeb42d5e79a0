"""Muon, for matrices: torch has one from 2.9 on, which turns them one by one and in bfloat16 only.

Keller Jordan and others, "Muon: An optimizer for hidden layers", 2024.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from trainer.tiny.shared.precision import bfloat16_pays


class Muon:
    """Momentum turned orthogonal, for matrices of which those of a shape are turned at once."""

    def __init__(self, matrices: Sequence[nn.Parameter]) -> None:
        self.shapes: dict[torch.Size, list[nn.Parameter]] = {}
        for parameter in matrices:
            self.shapes.setdefault(parameter.shape, []).append(parameter)
        self.momentum = {shape: torch.zeros(len(ps), *shape, device=ps[0].device) for shape, ps in self.shapes.items()}

    @torch.no_grad()
    def step(self, rate: float, beta: float = 0.95) -> None:
        """Make a step: matrices of a shape at once."""
        for shape, parameters in self.shapes.items():
            gradient = torch.stack([p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters])
            momentum = self.momentum[shape].lerp_(gradient, 1 - beta)
            update = _orthogonal(gradient.lerp(momentum, beta).flatten(2))
            scale = max(1.0, shape[0] / math.prod(shape[1:])) ** 0.5
            for parameter, change in zip(parameters, update, strict=True):
                parameter.sub_(change.view(shape).to(parameter.dtype), alpha=rate * scale)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the momenta by the shape of their matrices."""
        return {_name(shape): momentum for shape, momentum in self.momentum.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        for shape, momentum in self.momentum.items():
            momentum.copy_(state[_name(shape)])


def _name(shape: torch.Size) -> str:
    return "x".join(map(str, shape))


def _orthogonal(matrices: Tensor, rounds: int = 5) -> Tensor:
    """Return the nearest orthogonal matrices, roughly, by Newton and Schulz' iteration."""
    x = matrices.to(torch.bfloat16 if bfloat16_pays(matrices.device.type) else torch.float32)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(rounds):
        square = x @ x.mT
        square = torch.baddbmm(square, square, square, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, square, x, beta=3.4445)
    return (x.mT if tall else x).float()
