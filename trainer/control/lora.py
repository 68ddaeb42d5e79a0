"""The backbone LoRA: peft layers, injected through diffusers, on every projection of every block."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from diffusers import WanTransformer3DModel
from peft import LoraConfig
from peft.tuners.lora import LoraLayer

from scenes.errors import StopdownError
from trainer.control.config import LoraSettings

LORA_NAME = "stopdown"
MODULES = (
    "attn1.to_q",
    "attn1.to_k",
    "attn1.to_v",
    "attn1.to_out.0",
    "attn2.to_q",
    "attn2.to_k",
    "attn2.to_v",
    "attn2.to_out.0",
    "ffn.net.0.proj",
    "ffn.net.2",
)
TARGETS = r"blocks\.\d+\.(?:attn[12]\.to_(?:q|k|v|out\.0)|ffn\.net\.(?:0\.proj|2))"  # peft matches the whole name


def lora_modules(num_layers: int) -> tuple[str, ...]:
    """Return the names of the modules that carry LoRA in a backbone of `num_layers` blocks."""
    return tuple(f"blocks.{block}.{module}" for block in range(num_layers) for module in MODULES)


def lora_config(settings: LoraSettings) -> LoraConfig:
    """Return peft's configuration of the backbone LoRA."""
    return LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=TARGETS, lora_dropout=0.0, bias="none")


def inject_lora(transformer: WanTransformer3DModel, settings: LoraSettings, seed: int) -> None:
    """Add the LoRA to a transformer: A drawn from `seed`, B zero, in the backbone's dtype.

    Raises StopdownError where peft adapts other layers than these.
    """
    with torch.random.fork_rng(devices=[]):  # peft draws from torch's global generator; leave it as it was
        torch.manual_seed(seed)
        transformer.add_adapter(lora_config(settings), adapter_name=LORA_NAME)
    found = {name for name, _ in lora_layers(transformer)}
    expected = set(lora_modules(transformer.config.num_layers))
    if found != expected:
        raise StopdownError(
            f"LoRA reached {len(found)} modules instead of {len(expected)}; first difference: {min(found ^ expected)}; "
            "this version of peft or diffusers names Wan's modules otherwise"
        )


def lora_layers(transformer: WanTransformer3DModel) -> Iterator[tuple[str, LoraLayer]]:
    """Yield the name and layer of every module that carries this project's LoRA."""
    for name, module in transformer.named_modules():
        if isinstance(module, LoraLayer) and LORA_NAME in module.lora_A:
            yield name, module


def lora_parameters(transformer: WanTransformer3DModel) -> dict[str, torch.nn.Parameter]:
    """Return the LoRA's parameters under peft's file names (`blocks.0.attn1.to_q.lora_A.weight`)."""
    return {
        f"{name}.{part}.weight": getattr(layer, part)[LORA_NAME].weight
        for name, layer in lora_layers(transformer)
        for part in ("lora_A", "lora_B")
    }


def block_of(name: str) -> int:
    """Return the block index in a module's name (`blocks.7.attn1.to_q`)."""
    return int(name.split(".")[1])


def activate_lora(transformer: WanTransformer3DModel, is_active: Callable[[int], bool], strength: float) -> None:
    """Let the LoRA act in the blocks that `is_active` names, scaled by `strength`; other LoRAs stay as they are."""
    for name, layer in lora_layers(transformer):
        flags = [(parameter, parameter.requires_grad) for parameter in layer.parameters()]
        others = [other for other in layer.active_adapters if other != LORA_NAME]
        layer.set_adapter([*others, LORA_NAME] if is_active(block_of(name)) and strength != 0 else others)
        layer.set_scale(LORA_NAME, strength)
        for parameter, requires_grad in flags:  # peft makes active layers trainable; which ones train is not a mode's business
            parameter.requires_grad_(requires_grad)
