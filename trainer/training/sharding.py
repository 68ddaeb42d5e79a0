"""Tensors that FSDP2 spreads over processes: put together for a file, and cut up again. Others pass through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor put together; all processes must call it for a sharded one. It may have any shape `[...]`."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sharded_like(value: Any, model: Tensor) -> Any:
    """Return a tensor of `model`'s shape spread as `model` is; anything else as it is. It may have any shape `[...]`."""
    if isinstance(model, DTensor) and isinstance(value, Tensor) and value.shape == model.shape:
        return distribute_tensor(value.to(model.device), model.device_mesh, model.placements)
    return value


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """Hold a sharded module whole on every process, all of which must enter; others are whole already."""
    shards = [part for part in module.modules() if isinstance(part, FSDPModule)]
    for part in shards:
        part.unshard()
    try:
        yield
    finally:
        for part in shards:
            part.reshard()
