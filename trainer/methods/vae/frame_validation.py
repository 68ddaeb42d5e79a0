"""Validation of an autoencoder: its loss on held-out clips at fixed noise of the posterior.

Shapes: C latent channels, t h w latent frames, rows and columns.
"""

from __future__ import annotations

import numpy as np

from scenes.errors import StopdownError
from trainer.data.frames import FRAMES
from trainer.methods.vae.task import VaeTask
from trainer.training.callbacks.evaluation_mode import check_whole, evaluation_mode
from trainer.training.callbacks.validation import Validation
from trainer.training.tasks.base import Task
from trainer.training.tasks.objective import fixed_noise


class FrameValidation(Validation):
    """The watcher that validates an autoencoder: the start of every held-out clip, as long as training's longest crop."""

    def refuse(self, task: Task) -> None:
        """Raise for what is no autoencoder."""
        if not isinstance(task, VaeTask):
            raise StopdownError(f"task {task.name} is no autoencoder; validate it with Validation")
        check_whole(task.module)

    def measure(self, task: Task) -> dict[str, float]:
        """Return the mean loss, and by size (frames x height x width). The task is left as it was."""
        assert isinstance(task, VaeTask)
        config = task.vae.config
        by_size: dict[str, list[float]] = {}
        with evaluation_mode(task, self.averaged()):
            for record in self.records:
                length = max(length for length in task.batches.lengths if length <= record.frames)
                batch = task.batches.batch([record], length, [0])
                _, frames, height, width, _ = batch.tensors[FRAMES].shape
                t = (frames - 1) // config.scale_factor_temporal + 1
                h, w = height // config.scale_factor_spatial, width // config.scale_factor_spatial
                noise_1Cthw = fixed_noise((config.z_dim, t, h, w), record.clip_id)[None]
                loss = float(task.losses_at(batch, noise_1Cthw, task.module)[0])
                by_size.setdefault(f"{frames}x{height}x{width}", []).append(loss)
        values = {"loss": float(np.mean([loss for losses in by_size.values() for loss in losses]))}
        return values | {f"loss/size/{size}": float(np.mean(losses)) for size, losses in sorted(by_size.items())}
