"""What the loop needs to know of a run: from `[train]`, or from other settings, as those of the tiny backbone's stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer

from trainer.config.train import CheckpointSettings, TrainSettings
from trainer.training.optimizers import make_optimizer
from trainer.training.schedule import learning_rate


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """The numbers of a run, its optimizer and its schedule.

    `make_optimizer` is given what trains, by name; the `lr` that it gives a group is the group's full rate. `rate` makes of a
    full rate that of a step, from the number of steps made before.
    """

    steps: int
    seed: int
    make_optimizer: Callable[[Mapping[str, nn.Parameter]], Optimizer]
    rate: Callable[[float, int], float]
    checkpoints: CheckpointSettings
    batch_size: int = 1
    accumulation: int = 1
    clip_norm: float = 0.0  # 0 for no limit
    ema_decay: float = 0.0  # 0 for no averaged weights
    max_loss_factor: float = 0.0  # 0 for never
    compile: bool = False
    blocks_to_swap: int = 0

    @staticmethod
    def of(settings: TrainSettings) -> LoopSettings:
        """Return what `[train]` says of it."""
        own = settings.optimizer
        return LoopSettings(
            steps=settings.steps,
            seed=settings.seed,
            make_optimizer=lambda parameters: make_optimizer(list(parameters.values()), own),
            rate=lambda full, step: learning_rate(own, full, step, settings.steps),
            checkpoints=settings.checkpoints,
            batch_size=settings.batch_size,
            accumulation=settings.accumulation,
            clip_norm=own.clip_norm,
            ema_decay=own.ema_decay,
            max_loss_factor=own.max_loss_factor,
            compile=settings.compile,
            blocks_to_swap=settings.backbone.blocks_to_swap,
        )
