"""What both training benchmarks share: a random backbone of a named size on a device, and one training step of an adapter.

Shapes: B batch, C latent channels, T latent frames, H rows, W columns, L text tokens, X text width.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from torch import nn

from trainer.backbones.wan_configs import TEXT_LENGTH, WAN_CONFIGS, WanConfig, random_transformer
from trainer.control import AdapterConfig, ControlConfig, LoraSettings, WanAdapter, attach, axis_control, resolve_blocks
from trainer.estimates.flops import PEAKS
from trainer.training.tasks.objective import flow_losses, mix, model_times, predict_velocity, sample_times

TINY = WanConfig(hub_id="tiny-random", num_attention_heads=4, attention_head_dim=16, ffn_dim=128, num_layers=6)
MIDDLE = WanConfig(hub_id="none", num_attention_heads=8, attention_head_dim=64, ffn_dim=2048, num_layers=8)
BACKBONES = {"tiny-random": TINY, "middle": MIDDLE, **WAN_CONFIGS}


def peak_flops(device_name: str) -> float | None:
    """Return a device's peak of dense bf16 operations per second, None for one that is not in the table."""
    return next((peak for part, peak in PEAKS.items() if part in device_name), None)


def random_backbone(name: str, device: torch.device, seed: int = 0) -> WanTransformer3DModel:
    """Return a transformer of a named size, drawn on the device in bfloat16, in the dtypes that `from_pretrained` leaves."""
    transformer = random_transformer(BACKBONES[name], device=str(device), dtype=torch.bfloat16, seed=seed)
    for key, parameter in transformer.named_parameters():
        if any(part in transformer._keep_in_fp32_modules for part in key.split(".")):
            parameter.data = parameter.data.float()
    return transformer


def reference_config(num_layers: int, arm: str = "joint") -> AdapterConfig:
    """Return the adapter of DESIGN section 4 for a backbone's depth."""
    blocks = resolve_blocks("deepest_third", num_layers)
    control = ControlConfig(axes=(axis_control("shutter"),), blocks=blocks) if arm != "lora_only" else None
    return AdapterConfig(control=control, lora=LoraSettings() if arm != "adapter_only" else None)


def reference_adapter(transformer: WanTransformer3DModel, arm: str) -> WanAdapter:
    """Put the adapter of DESIGN section 4 on a transformer, float32: `joint`, `lora_only` or `adapter_only`."""
    config = reference_config(transformer.config.num_layers, arm)
    adapter = attach(transformer, config, dtype=torch.float32)
    adapter.set_mode({"adapter_only": "control_only"}.get(arm, arm))
    return adapter


class Step:
    """One optimizer step of an adapter on random latents and text, as the trainer makes it: autocast, AdamW, clipping."""

    def __init__(self, adapter: WanAdapter, *, size_BCTHW: tuple[int, ...], per_token_times: bool, seed: int = 0) -> None:
        self.adapter = adapter
        self.per_token_times = per_token_times
        transformer = adapter.transformer
        self.device = transformer.patch_embedding.weight.device
        self.generator = torch.Generator(device=self.device).manual_seed(seed)
        self.latents_BCTHW = torch.randn(size_BCTHW, generator=self.generator, device=self.device)
        text = (size_BCTHW[0], TEXT_LENGTH, transformer.config.text_dim)
        self.text_BLX = torch.randn(text, generator=self.generator, device=self.device).to(torch.bfloat16)
        self.controls_BA = torch.rand(size_BCTHW[0], 1, device=self.device, generator=self.generator) * 2 - 1
        self.parameters = list(adapter.parameters().values())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=2e-5, betas=(0.9, 0.99), fused=True)

    def __call__(self) -> None:
        """Make the step and wait for the device."""
        transformer = self.adapter.transformer
        noise_BCTHW = torch.randn(self.latents_BCTHW.shape, generator=self.generator, device=self.device)
        times_B = sample_times(len(noise_BCTHW), self.generator)
        noisy_BCTHW = mix(self.latents_BCTHW, noise_BCTHW, times_B)
        times = model_times(times_B, noisy_BCTHW, transformer.config.patch_size, per_token=self.per_token_times)
        controls_BA = self.controls_BA if self.adapter.config.control is not None else None
        with torch.autocast(self.device.type, torch.bfloat16):
            velocity = predict_velocity(transformer, noisy_BCTHW, times, self.text_BLX, controls_BA, torch.bfloat16)
        flow_losses(velocity, self.latents_BCTHW, noise_BCTHW).mean().backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def latent_size(name: str, *, batch: int, frames: int, height: int, width: int) -> tuple[int, int, int, int, int]:
    """Return the latents' shape [B, C, T, H, W] of a video of pixels in a named backbone."""
    config = BACKBONES[name]
    spatial = 16 if config.expand_timesteps else 8
    return batch, config.channels, (frames - 1) // 4 + 1, height // spatial, width // spatial


def seconds(run: Callable[[], None], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return how long a call takes."""
    start = clock()
    run()
    return clock() - start


def device_name(device: torch.device) -> str:
    """Return what a device is called."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.exists() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor() or "CPU"
    )


def device_peak(device: torch.device, size: int = 1024) -> tuple[float | None, str]:
    """Return a device's peak operations per second in bfloat16 and where the number comes from."""
    if device.type == "cuda":
        name = device_name(device)
        return peak_flops(name), f"data sheet of {name}, dense bf16"
    left, right = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))
    best = min(seconds(lambda: torch.mm(left, right), time.process_time) for _ in range(5))
    return 2 * size**3 / best, f"best of five bf16 products of {size}x{size} here, {torch.get_num_threads()} thread(s)"
