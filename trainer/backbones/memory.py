"""Getting parts of a pipeline onto a device and out of memory again."""

from __future__ import annotations

import gc
from typing import Literal

import torch
from diffusers import WanPipeline

Offload = Literal["none", "cpu", "disk"]


def release(pipe: WanPipeline, *names: str) -> None:
    """Drop components of a pipeline and give their memory back; nothing else may hold them."""
    pipe.register_modules(**dict.fromkeys(names))
    empty_cache()


def leave_device(pipe: WanPipeline, name: str, offload: Offload) -> None:
    """Take a component off its device: `disk` drops it (it can be loaded again), `cpu` moves it, `none` leaves it."""
    if offload == "disk":
        release(pipe, name)
    elif offload == "cpu":
        getattr(pipe, name).to("cpu")
        empty_cache()


def empty_cache() -> None:
    """Collect garbage and hand the accelerator's unused memory back."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
