"""A small control task on `tiny-random` with clips of random latents, for the tests of what watches a run.

Shapes: C latent channels, t h w latent frames, rows and columns; L text tokens, X text width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import WanPipeline
from torch import Tensor
from trainer_support import scramble

from trainer.backbones.load import load_backbone
from trainer.backbones.tiny_random import TEXT_DIM
from trainer.config.train import TrainSettings
from trainer.control import AdapterConfig, ControlConfig, LoraSettings, axis_control
from trainer.data.batches import FlowBatches
from trainer.data.records import TrainingClip
from trainer.methods.control.task import ControlTask, Provenance, attach_adapters
from trainer.training.loop import Loop
from trainer.training.tasks.base import Callback
from trainer.training.tasks.flow import RectifiedFlow

AXES = ("shutter", "temperature")
TOKENS = 6


class MemoryReader:
    """Reads encodings as the real reader does, from names instead of files."""

    def latents(self, record: TrainingClip) -> Tensor:
        """Return latents [C, t, h, w] that depend on the clip."""
        t, h, w = (record.frames - 1) // 4 + 1, record.height // 8, record.width // 8
        return torch.randn(16, t, h, w, generator=_generator(record.frames_sha256))

    def text(self, caption: str) -> Tensor:
        """Return an embedding [L, X] that depends on the caption."""
        return torch.randn(TOKENS, TEXT_DIM, generator=_generator(caption))


def _generator(name: str) -> torch.Generator:
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big"))


def clips(prefix: str, *, frames: Sequence[int] = (5, 5, 1, 5, 1)) -> tuple[TrainingClip, ...]:
    """Return clips of 32 pixels: the first vary the shutter, the last two the temperature, the second is all neutral."""
    controls = [(0.7, 0.0), (0.0, 0.0), (-0.5, 0.0), (0.0, 0.9), (0.0, -0.4)]
    return tuple(
        TrainingClip(
            clip_id=f"{prefix}-{number}",
            scene_id=f"{prefix}-scene-{number}",
            caption=f"a red ball, {prefix} {number}",
            frames_sha256=f"{prefix}-{number}",
            frames=length,
            height=32,
            width=32,
            fps=16,
            controls=controls[number],
        )
        for number, length in enumerate(frames)
    )


def tiny_pipe(cache: Path) -> WanPipeline:
    """Return a fresh tiny backbone."""
    return load_backbone("tiny-random", cache=cache)


def control_task(pipe: WanPipeline, *, axes: Sequence[str] = AXES, scrambled: bool = True, ramp_steps: int = 4) -> ControlTask:
    """Return a control task on a pipeline: small adapters, clips of two sizes."""
    control = ControlConfig(axes=tuple(map(axis_control, axes)), blocks=(4, 5), rank=4, alpha=4, embed_dim=16, hidden_dim=8)
    adapters = attach_adapters(pipe, AdapterConfig(control=control, lora=LoraSettings(rank=2, alpha=2)))
    if scrambled:
        scramble(adapters["transformer"])
    batches = FlowBatches(clips("train"), MemoryReader(), batch_size=2, seed=1)
    provenance = Provenance(backbone_id="tiny-random")
    return ControlTask(adapters, batches, RectifiedFlow.of(pipe, ("transformer",)), provenance, ramp_steps=ramp_steps)


def small_settings(steps: int = 6, **more: object) -> TrainSettings:
    """Return settings of a short run."""
    tree = {
        "dataset": "unused",
        "steps": steps,
        "accumulation": 1,
        "batch_size": 2,
        "device": "cpu",
        "precision": "no",
        "optimizer": {"learning_rate": 1e-3, "warmup_steps": 0, "ema_decay": 0.9},
        "checkpoints": {"every": 2},
        "validation": {"every": 3, "times": 2},
    }
    return TrainSettings.model_validate({**tree, **more})


def make_loop(task: ControlTask, settings: TrainSettings, folder: Path, callbacks: Sequence[Callback] = ()) -> Loop:
    """Return the loop of a task on the CPU."""
    return Loop(task, settings, folder, Accelerator(cpu=True), callbacks=callbacks)
