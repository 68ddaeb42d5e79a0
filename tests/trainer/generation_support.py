"""Adapters with random weights on the tiny backbone, and the commands called in this process, for the tests of generation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import typer
from diffusers import WanPipeline
from trainer_support import scramble
from typer.testing import CliRunner, Result

from scenes.arrays import Bytes
from trainer.adapters.folder import save_adapter
from trainer.control import AdapterConfig, ControlConfig, LoraSettings, attach, axis_control
from trainer.generation.plan import Point, labels_of
from trainer.generation.sampler import Sampling, Stepped
from trainer.methods.control.generate import sample
from trainer.pipelines.controlled_wan import ControlledWan

SMALL = ["--width", "32", "--height", "32", "--frames", "5", "--steps", "2", "--text-tokens", "12"]


def small_config(*axes: str, lora: bool = True, control: bool = True) -> AdapterConfig:
    """Return a small adapter's configuration for the tiny backbone; alpha is the rank, as the published format wants it."""
    part = ControlConfig(axes=tuple(axis_control(name) for name in axes), blocks=(4, 5), rank=4, alpha=4, embed_dim=16)
    return AdapterConfig(control=part if control else None, lora=LoraSettings(rank=2, alpha=2) if lora else None)


def save_random(pipe: WanPipeline, folder: Path, config: AdapterConfig, step: int = 1) -> Path:
    """Save an adapter of random weights for a pipeline, which is bare again afterwards."""
    adapter = scramble(attach(pipe.transformer, config))
    save_adapter(folder, {"transformer": adapter}, backbone_id="tiny-random", step=step, dataset_version="a" * 64)
    adapter.detach()
    return folder


def run(command: Callable[..., None] | typer.Typer, *words: object) -> Result:
    """Run a command, or an application with subcommands; errors are in `exception`."""
    app = command if isinstance(command, typer.Typer) else typer.Typer(add_completion=False)
    if not isinstance(command, typer.Typer):
        app.command()(command)
    return CliRunner().invoke(app, [str(word) for word in words])


def output(command: Callable[..., None] | typer.Typer, *words: object) -> str:
    """Run a command that must succeed and return its output."""
    result = run(command, *words)
    if result.exception is not None:
        raise result.exception
    return result.stdout


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Videos of one prompt and seed: frames, the controls asked for, and their values in units, one tuple per video."""

    frames_NTHW3: Bytes
    points: tuple[Point, ...]
    labels: tuple[tuple[str, ...], ...]


def generate_sweep(
    pipe: ControlledWan,
    prompt: str,
    points: Sequence[Point],
    *,
    sampling: Sampling,
    seed: int = 0,
    negative: str = "",
    mode: str | None = None,
    strength: float = 1.0,
    batch: int = 1,
    on_step: Stepped | None = None,
) -> Sweep:
    """Return a video per point (`{"shutter": 0.7}`, controls by axis; an axis without one is neutral), all from the same noise.

    Raises InputError for a size the backbone cannot take, an axis the adapter lacks, an unknown mode, and too little memory.
    """
    videos = list(
        sample(
            pipe,
            prompt,
            points,
            sampling=sampling,
            seed=seed,
            negative=negative,
            mode=mode,
            strength=strength,
            batch=batch,
            on_step=on_step,
        )
    )
    labels = tuple(labels_of(pipe.axes, point) for point in points)
    return Sweep(frames_NTHW3=np.stack(videos), points=tuple(points), labels=labels)
