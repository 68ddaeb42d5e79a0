"""Adapters with random weights on the tiny backbone, and the commands called in this process, for the tests of generation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import typer
from diffusers import WanPipeline
from trainer_support import scramble
from typer.testing import CliRunner, Result

from trainer.adapters.folder import save_adapter
from trainer.control import AdapterConfig, ControlConfig, LoraSettings, attach, axis_control

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
