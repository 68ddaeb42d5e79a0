"""What can be trained: the control adapter, a whole transformer (with its text encoder), an autoencoder; and their losses.

`base` says what the loop asks of a task and tells those who watch.
Not here: the loop (`trainer/training/loop.py`), batches (`trainer/data/`).
"""

from __future__ import annotations

from trainer.training.tasks.control import ControlTask
from trainer.training.tasks.transformer import TransformerTask
from trainer.training.tasks.vae import VaeTask

TASKS: dict[str, type[ControlTask] | type[TransformerTask] | type[VaeTask]] = {
    "control": ControlTask,
    "transformer": TransformerTask,
    "vae": VaeTask,
}

__all__ = ["TASKS", "ControlTask", "TransformerTask", "VaeTask"]
