"""What tests of tasks share: steps as the loop makes them, losses with draws from a seed.

Shapes: B clips.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.data.batch import Batch
from trainer.methods.control.task import ControlTask
from trainer.methods.transformer.task import TransformerTask
from trainer.training.tasks.base import Task
from trainer.training.tasks.flow import Draw
from trainer.training.tasks.objective import fixed_noise, fixed_times

LENGTH = 24  # text tokens


def scramble(task: Task, scale: float = 0.1) -> None:
    """Give all that trains random values, as after training."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in task.parameters().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=scale)


def losses(task: Task, batch: Batch, seed: int = 0) -> Tensor:
    """Return a batch's losses with draws from a seed."""
    return task.losses(batch, torch.Generator().manual_seed(seed), task.module)


def fit(task: Task, steps: int, rate: float) -> None:
    """Make optimizer steps as the loop does."""
    optimizer = torch.optim.AdamW(task.parameters().values(), lr=rate)
    for step in range(steps):
        task.before_step(step)
        optimizer.zero_grad()
        losses(task, task.micro_batch(step, 0, 1), step).mean().backward()
        optimizer.step()


@torch.no_grad()
def held_loss(task: ControlTask | TransformerTask, times: int = 3) -> float:
    """Return the loss over all training clips at fixed noise and times."""
    found = []
    for record in task.batches.records:
        batch = task.batches.batch([record])
        noise = fixed_noise(tuple(batch.tensors["latents"].shape), record.clip_id)
        for time in fixed_times(times):
            found.append(task.losses_at(batch, Draw(times_B=time[None], noise_BCTHW=noise), task.module))
    return torch.cat(found).mean().item()
