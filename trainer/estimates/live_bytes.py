"""Counts the most bytes that a computation holds at once, on the meta device: without a GPU, without memory, in a second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Within `with LiveBytes() as live:`, `live.peak` is the most that the results of operations take together.

    What was there before (weights, inputs) does not count; memory is given back when the last tensor on it is. What kernels
    need besides is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._held: dict[int, tuple[StorageWeakRef, int]] = {}
        self._before: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Carry an operation out and count what it leaves."""
        given = {tensor.untyped_storage()._cdata for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
        self._before |= given - set(self._held)
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._before:
                    self._held[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self._held = {key: one for key, one in self._held.items() if not one[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._held.values()))
        return made


@torch.no_grad()
def encoding_peak(vae: Any, height: int, width: int, frames: int) -> int:
    """Return the most bytes that a video autoencoder takes besides its weights to encode one clip in float32.

    It has to be on the meta device. Wan's autoencoder encodes the first frame and then four at a time, so that more than nine
    frames add only themselves.
    """
    counted = min(frames, 1 + 2 * vae.config.scale_factor_temporal)
    with LiveBytes() as live:
        vae.encode(torch.empty(1, 3, counted, height, width, device="meta"))
    return live.peak + frames * 3 * height * width * 4
