"""ComfyUI's LoRA files: `diffusion_model.` names of the original Wan code, with an alpha per module where it is not the rank.

Stock ComfyUI applies the LoRA in every block and knows no control attention: such a file is the mode `lora_only`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from scenes.errors import InputError
from trainer.control.config import LoraSettings
from trainer.weights.key_names import PROJECTIONS, inverse, lora_names
from trainer.weights.strict import check_exact, rename


def to_comfyui(lora: Mapping[str, Tensor], settings: LoraSettings, num_layers: int) -> dict[str, Tensor]:
    """Return a LoRA (peft's names) under ComfyUI's names."""
    weights = rename("LoRA", inverse(lora_names(num_layers)), lora)
    if settings.alpha != settings.rank:
        alphas = {key: torch.tensor(float(settings.alpha)) for key in _alpha_names(num_layers)}
        return weights | alphas
    return weights


def from_comfyui(weights: Mapping[str, Tensor], num_layers: int, source: str) -> tuple[dict[str, Tensor], LoraSettings]:
    """Return a LoRA under peft's names, and its rank and alpha.

    Raises InputError for names that are missing or unexpected, and for ranks or alphas that differ between modules.
    """
    alpha_names = _alpha_names(num_layers)
    has_alphas = any(name in weights for name in alpha_names)
    given = {name: weights[name] for name in alpha_names if name in weights}
    if has_alphas:
        check_exact(f"{source} (alphas)", dict.fromkeys(alpha_names, ()), given)
    lora = rename(source, lora_names(num_layers), {name: t for name, t in weights.items() if name not in given})
    ranks = {tensor.shape[0] for name, tensor in lora.items() if name.endswith(".lora_A.weight")}
    alphas = {float(alpha) for alpha in given.values()}
    if len(ranks) != 1 or len(alphas) > 1:
        raise InputError(
            f"{source} has ranks {sorted(ranks)} and alphas {sorted(alphas)}; one rank and one alpha are supported"
        )
    rank = ranks.pop()
    return lora, LoraSettings(rank=rank, alpha=alphas.pop() if alphas else float(rank))


def _alpha_names(num_layers: int) -> list[str]:
    return [f"diffusion_model.blocks.{block}.{module}.alpha" for block in range(num_layers) for module in PROJECTIONS]
