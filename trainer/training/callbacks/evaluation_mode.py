"""Steps aside from training to look at the model, and puts everything back: weights, modes, training flags, random states."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from scenes.errors import InputError
from trainer.control import WanAdapter
from trainer.training.tasks.base import Task
from trainer.training.tasks.weights import swapped


@contextmanager
def evaluation_mode(task: Task, averaged: Mapping[str, Tensor] | None) -> Iterator[None]:
    """Hold a task still for measuring: no gradients, evaluation mode, the averaged weights where there are such.

    On leaving, parameters are as they were bit for bit, and so are adapters' modes and ramps, modules' training flags and the
    random states of torch, numpy and Python. Raises InputError for a module that is spread over processes (FSDP).
    """
    check_whole(task.module)
    adapters: Mapping[str, WanAdapter] = getattr(task, "adapters", {})
    states = {name: (adapter.mode, adapter.strength, adapter.ramp) for name, adapter in adapters.items()}
    flags = [(module, module.training) for module in task.module.modules()]
    with _random_states(), torch.no_grad(), swapped(task.parameters(), averaged):
        task.module.eval()
        try:
            yield
        finally:
            for name, (mode, strength, ramp) in states.items():
                adapters[name].set_mode(mode, strength)
                adapters[name].set_ramp(ramp)
            for module, training in flags:
                module.training = training


def check_whole(module: nn.Module) -> None:
    """Raise InputError for a module whose parameters are spread over processes: one process cannot call it alone."""
    if any(isinstance(parameter, DTensor) for parameter in module.parameters()):
        raise InputError(
            "validation and previews run on one process and need the whole model there, FSDP spreads it; set "
            "validation.every = 0 and previews.every = 0, or launch without FSDP"
        )


@contextmanager
def _random_states() -> Iterator[None]:
    own, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002  it is the global state that must not change
    try:
        devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(own)
        np.random.set_state(numbers)  # noqa: NPY002
