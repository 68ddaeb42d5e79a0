"""Holds the frozen weights of a transformer's last blocks in main memory, and has each on the device while its block computes.

The weights never change, so nothing is written back: a block's copy is made before its forward pass, again before its backward
pass, and dropped after each. While a block computes, the next one's copy is under way, so that two of them are on the device at
most. Adapters stay on the device.

Memory of a copy is taken on the stream that computes; the stream that copies waits for all that was asked of the computing one
before. So it is never written while an earlier block still reads it, and the number of copies does not depend on how far Python
runs ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.parallel import DistributedDataParallel

from trainer.training.tasks.flow import Experts


@dataclass(frozen=True)
class Slot:
    """Where a frozen weight is used, and the weight in main memory."""

    path: str  # from the transformer on
    module: nn.Module
    kept: nn.Parameter


@dataclass(frozen=True)
class Copy:
    """A block's weights on the device, usable once `arrived`."""

    block: int
    weights: tuple[nn.Parameter, ...]
    arrived: torch.cuda.Event | None


@dataclass(frozen=True)
class View:
    """A tensor that autograd keeps for the backward pass and that lies in a block's weight: which, and how it lies there."""

    place: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


class BlockSwap:
    """The last `count` blocks of a transformer, swapped from now on; everything else of it is for the caller to place."""

    def __init__(self, transformer: WanTransformer3DModel, count: int, device: torch.device) -> None:
        self.device = device
        self.peak_bytes = 0  # the most that copies took together
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._transformer = transformer
        self._slots = {index: _slots(transformer, index, device) for index in _last(transformer, count)}
        self._first = min(self._slots)
        self._before = self._first - 1  # the block that was used before: it tells the direction
        self._differentiated: set[int] = set()  # blocks that have a backward pass
        self._ahead: Copy | None = None
        self._back: Copy | None = None  # of the block in whose backward pass autograd is, without gradient checkpointing
        self._alive: list[tuple[StorageWeakRef, int]] = []
        for index in self._slots:
            block = transformer.blocks[index]
            block.forward = self._swapped(index, block.forward)
        transformer.register_forward_pre_hook(self._begin)

    @property
    def paths(self) -> tuple[str, ...]:
        """The names of the weights in main memory."""
        return tuple(slot.path for slots in self._slots.values() for slot in slots)

    @property
    def device_bytes(self) -> int:
        """The bytes that copies take on the device now."""
        self._alive = [one for one in self._alive if not one[0].expired()]
        return sum(size for _, size in self._alive)

    @contextmanager
    def without_weights(self) -> Iterator[None]:
        """Take the weights out of their modules for a while, so that `.to` moves the others alone."""
        slots = [slot for slots in self._slots.values() for slot in slots]
        for slot in slots:
            slot.module._parameters["weight"] = None
        try:
            yield
        finally:
            for slot in slots:
                slot.module._parameters["weight"] = slot.kept

    def _begin(self, _transformer: nn.Module, _arguments: Any) -> None:
        """Ask for the first swapped block, before the ones that stay compute."""
        self._back = None
        self._differentiated.clear()
        self._before = self._first - 1
        if self._ahead is None or self._ahead.block != self._first:
            self._forget_ahead()
            self._ahead = self._start(self._first)

    def _swapped(self, index: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        """Return a block's forward, with its weights on the device while it runs."""

        def run(*arguments: Any, **options: Any) -> Any:
            copy = self._take(index)
            slots = self._slots[index]
            for slot, weight in zip(slots, copy.weights, strict=True):
                slot.module._parameters["weight"] = weight
            try:
                with self._keeping_views(copy):
                    result = forward(*arguments, **options)
                if result.requires_grad:
                    self._differentiated.add(index)
                return result
            finally:  # checkpointing leaves a repeated forward by an exception
                for slot in slots:
                    slot.module._parameters["weight"] = slot.kept

        return run

    def _keeping_views(self, copy: Copy) -> AbstractContextManager[Any]:
        """Let autograd keep where a weight is instead of the weight.

        Under gradient checkpointing it keeps none: the block runs again before its backward pass, whose copy lives as long as
        autograd holds it.
        """
        if not torch.is_grad_enabled() or self._transformer.gradient_checkpointing:
            return nullcontext()
        places = {part.data_ptr(): place for place, weight in enumerate(copy.weights) for part in _parts(weight)}
        block, open_views = copy.block, [0]
        del copy  # what autograd keeps must not hold it

        def pack(tensor: Tensor) -> Tensor | View:
            place = places.get(tensor.untyped_storage().data_ptr())
            if place is None:
                return tensor
            open_views[0] += 1
            return View(place, tuple(tensor.size()), tensor.stride(), int(tensor.storage_offset()))

        def unpack(kept: Tensor | View) -> Tensor:
            if isinstance(kept, Tensor):
                return kept
            if self._back is None or self._back.block != block:
                self._back = None
                self._back = self._take(block)
            weight = self._back.weights[kept.place]
            open_views[0] -= 1
            if open_views[0] <= 0:  # the last of them: the block's backward pass needs no other
                self._back = None
            return weight.detach().as_strided(kept.size, kept.stride, kept.offset)

        return torch.autograd.graph.saved_tensors_hooks(pack, unpack)

    def _take(self, index: int) -> Copy:
        """Return a block's weights on the device and ask for those of the block that comes next in this direction."""
        if self._ahead is None or self._ahead.block != index:
            self._forget_ahead()
            self._ahead = self._start(index)
        copy, self._ahead = self._ahead, None
        self._wait(copy)
        following = index + 1 if index > self._before else index - 1
        self._before = index
        if following in (self._slots if following > index else self._differentiated):
            self._ahead = self._start(following)
        return copy

    def _forget_ahead(self) -> None:
        if self._ahead is not None:
            self._wait(self._ahead)  # its memory must not be used again while it is still written
            self._ahead = None

    def _start(self, index: int) -> Copy:
        """Begin to copy a block's weights to the device."""
        pairs = [(slot.kept, _like(slot.kept, self.device)) for slot in self._slots[index]]
        arrived = None
        if self._stream is None:
            _fill(pairs)
        else:
            self._stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(self._stream):
                _fill(pairs)
                arrived = self._stream.record_event()
        weights = tuple(nn.Parameter(made, requires_grad=False) for _, made in pairs)
        for weight in weights:
            self._alive += [
                (StorageWeakRef(part.untyped_storage()), part.untyped_storage().nbytes()) for part in _parts(weight)
            ]
        self.peak_bytes = max(self.peak_bytes, self.device_bytes)
        return Copy(block=index, weights=weights, arrived=arrived)

    def _wait(self, copy: Copy) -> None:
        if copy.arrived is not None:
            torch.cuda.current_stream(self.device).wait_event(copy.arrived)


def swap_blocks(module: nn.Module, count: int, device: torch.device) -> tuple[BlockSwap, ...]:
    """Hold the last `count` blocks of a transformer, or of each of two experts, in main memory; the rest goes to the device."""
    transformers: Mapping[str, Any] = dict(module.parts) if isinstance(module, Experts) else {"": module}
    swaps = []
    ignored = []
    for name, transformer in transformers.items():
        swap = BlockSwap(transformer, count, device)
        with swap.without_weights():
            transformer.to(device)
        swaps.append(swap)
        ignored += [f"parts.{name}.{path}" if name else path for path in swap.paths]
    # DDP refuses parameters on two kinds of device; these do not train, and every process has loaded the same
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, ignored)
    return tuple(swaps)


def _last(transformer: WanTransformer3DModel, count: int) -> range:
    layers = len(transformer.blocks)
    return range(layers - count, layers)


def _slots(transformer: WanTransformer3DModel, index: int, device: torch.device) -> tuple[Slot, ...]:
    """Put a block's frozen matrices into main memory, where a GPU copies from without waiting; returns where they are used."""
    slots = []
    for path, module in transformer.blocks[index].named_modules():
        weight = module._parameters.get("weight")
        if isinstance(module, nn.Linear) and weight is not None and not weight.requires_grad:
            module._parameters["weight"] = kept = _in_main_memory(weight, pinned=device.type == "cuda")
            slots.append(Slot(f"blocks.{index}.{path}.weight", module, kept))
    return tuple(slots)


def _in_main_memory(weight: nn.Parameter, *, pinned: bool) -> nn.Parameter:
    if not pinned:
        return weight
    made = _rebuilt(weight, [part.cpu().pin_memory() for part in _parts(weight)])
    return nn.Parameter(made, requires_grad=False)


def _like(weight: Tensor, device: torch.device) -> Tensor:
    return _rebuilt(weight, [torch.empty_like(part, device=device) for part in _parts(weight)])


@torch.no_grad()
def _fill(pairs: list[tuple[nn.Parameter, Tensor]]) -> None:
    for kept, made in pairs:
        for source, target in zip(_parts(kept), _parts(made), strict=True):
            target.copy_(source, non_blocking=True)


def _parts(weight: Any) -> list[Tensor]:
    """Return the plain tensors that a weight is made of: itself, or those of a packed one."""
    if not hasattr(weight, "__tensor_flatten__"):
        return [weight.detach()]
    names, _ = weight.__tensor_flatten__()
    return [getattr(weight, name) for name in names]


def _rebuilt(weight: Any, parts: list[Tensor]) -> Tensor:
    """Return a weight of the same kind made of other plain tensors."""
    if not hasattr(weight, "__tensor_flatten__"):
        return parts[0]
    names, context = weight.__tensor_flatten__()
    inner = dict(zip(names, parts, strict=True))
    made: Tensor = type(weight).__tensor_unflatten__(inner, context, weight.size(), weight.stride())
    return made
