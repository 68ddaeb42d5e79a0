"""Muon, for matrices and convolutions: torch has one from 2.9 on, which turns matrices one by one and in bfloat16 only.

Keller Jordan and others, "Muon: An optimizer for hidden layers", 2024.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.weights.precision import bfloat16_pays

MOMENTUM = "momentum_buffer"


class Muon(Optimizer):
    """Momentum turned orthogonal, for matrices of which those of a shape are turned at once.

    A convolution is the matrix [out, the rest], its columns in the order in which it lies in memory.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, beta: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "beta": beta})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Make a step: matrices of a shape at once."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                shapes.setdefault(_as_matrix(parameter).shape, []).append(parameter)
            for parameters in shapes.values():
                self._step(parameters, group["lr"], group["beta"])

    def _step(self, parameters: list[nn.Parameter], rate: float, beta: float) -> None:
        matrices = [_as_matrix(p.detach()) for p in parameters]
        gradient = torch.stack(
            [
                torch.zeros_like(m) if p.grad is None else _as_matrix(p.grad, p)
                for m, p in zip(matrices, parameters, strict=True)
            ]
        )
        kept = [self.state[p].setdefault(MOMENTUM, torch.zeros_like(m)) for m, p in zip(matrices, parameters, strict=True)]
        momentum = torch.stack(kept).lerp_(gradient, 1 - beta)
        update = _orthogonal(gradient.lerp(momentum, beta))
        scale = max(1.0, matrices[0].shape[0] / math.prod(matrices[0].shape[1:])) ** 0.5
        for matrix, held, now, change in zip(matrices, kept, momentum, update, strict=True):
            held.copy_(now)
            matrix.sub_(change.to(matrix.dtype), alpha=rate * scale)


def _as_matrix(tensor: Tensor, like: Tensor | None = None) -> Tensor:
    """Return `[out, ...]` as [out, the rest], its columns in the order in which `like` (or the tensor) lies in memory."""
    strides = (tensor if like is None else like).stride()
    order = sorted(range(1, tensor.ndim), key=lambda dim: -strides[dim])
    return tensor.permute(0, *order).flatten(1)


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
