"""Writes a LoRA of another program, of all projections or of some, in this project's formats, where those can say it."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from scenes.errors import InputError
from trainer.adapters.conversion.convert import Converted, check_file, save_folder, write_weights
from trainer.adapters.conversion.sources import AdapterFormat
from trainer.backbones.load import load_component
from trainer.control.config import AdapterConfig, LoraSettings
from trainer.formats.foreign_lora import OUTSIDE, ForeignLora, check_fits, check_padding, file_of, plain_weights, read_lora
from trainer.weights.key_names import PROJECTIONS, inverse
from trainer.weights.weights_file import read_header

ORIGIN = "a LoRA of another program"


def convert_lora(
    path: Path,
    target: Path,
    to: str,
    *,
    preset: str = "keep",
    backbone: str | None = None,
    expert: str = "transformer",
    cache: Path | None = None,
) -> Converted:
    """Write a LoRA to a new file, or as an adapter's folder for `diffusers`; returns what was written.

    ComfyUI's format says all of it. A folder has one rank and every projection of the blocks: smaller ranks are filled up with
    zeros, as are projections that the LoRA leaves alone, which changes nothing. Raises InputError for a target that exists, a
    format that cannot say it, and a backbone that it does not fit.
    """
    if to not in list(AdapterFormat):
        raise InputError(f"format '{to}' is unknown; allowed are {', '.join(AdapterFormat)}")
    if os.path.lexists(target):
        raise InputError(f"{target} exists; give a new name")
    lora = read_lora(path)
    if to == AdapterFormat.PUBLISHED or preset != "keep":
        what = "the published format holds" if to == AdapterFormat.PUBLISHED else f"preset '{preset}' restates"
        raise InputError(f"{what} a control, and {path} is a LoRA without one; convert it to comfyui or diffusers")
    return _to_comfyui(lora, target) if to == AdapterFormat.COMFYUI else _to_folder(lora, target, backbone, expert, cache)


def _to_comfyui(lora: ForeignLora, target: Path) -> Converted:
    """Write each module as it is: its own rank, its alpha where that is another number, its change of the bias."""
    check_file(target)
    weights: dict[str, Tensor] = {}
    for name, module in lora.modules.items():
        stem = f"diffusion_model.{_original(name)}"
        weights |= {f"{stem}.lora_A.weight": module.down, f"{stem}.lora_B.weight": module.up}
        if module.alpha != module.down.shape[0]:
            weights[f"{stem}.alpha"] = torch.tensor(module.alpha)
        if module.bias is not None:
            weights[f"{stem}.diff_b"] = module.bias
    if weights.keys() == read_header(file_of(lora.path)).tensors.keys():
        raise InputError(f"{lora.path} is in the format 'comfyui' already; choose another with --to")
    write_weights(target, weights, {"format": "pt"})
    return Converted(path=target, format=AdapterFormat.COMFYUI, tensors=len(weights), left_out=(), notes=lora.notes)


def _to_folder(lora: ForeignLora, target: Path, backbone: str | None, expert: str, cache: Path | None) -> Converted:
    if backbone is None:
        raise InputError(f"{lora.path} does not name its backbone; give --backbone, which an adapter's folder belongs to")
    _check_sayable(lora)
    transformer = load_component(WanTransformer3DModel, backbone, expert, dtype=torch.bfloat16, cache=cache)
    check_fits(lora, transformer)
    names = [f"blocks.{block}.{new}" for block in range(transformer.config.num_layers) for new in PROJECTIONS.values()]
    layers = {name: transformer.get_submodule(name) for name in names}
    rank = lora.rank
    check_padding(lora, rank * sum(layer.in_features + layer.out_features for layer in layers.values()))
    weights = plain_weights(lora)
    absent = [name for name in names if name not in lora.modules]
    for name in absent:
        weights[f"{name}.lora_A.weight"] = torch.zeros(rank, layers[name].in_features)
        weights[f"{name}.lora_B.weight"] = torch.zeros(layers[name].out_features, rank)
    config = AdapterConfig(control=None, lora=LoraSettings(rank=rank, alpha=float(rank)))
    origin = {"converted": {"file": lora.path.name, "format": ORIGIN}}
    save_folder(target, transformer, config, {}, weights, backbone=backbone, expert=expert, source=lora.path, origin=origin)
    notes = (
        *lora.notes,
        *([f"{len(absent)} of {len(names)} projections are zero: the LoRA leaves them alone"] if absent else []),
    )
    return Converted(path=target, format=AdapterFormat.DIFFUSERS, tensors=len(weights), left_out=(), notes=notes)


def _check_sayable(lora: ForeignLora) -> None:
    """Raise InputError for what an adapter's folder has no place for."""
    outside = sorted(set(lora.modules) & set(OUTSIDE.values()))
    biased = sorted(name for name, module in lora.modules.items() if module.bias is not None)
    for names, what in ((outside, "projections outside the blocks"), (biased, "biases")):
        if names:
            raise InputError(
                f"{lora.path} changes {len(names)} {what} ({names[0]}), for which an adapter's folder has no place; convert it "
                "to comfyui, or use it as it is: stopdown generate --lora"
            )


def _original(name: str) -> str:
    """Return a module's name in the original Wan code."""
    outside = inverse(OUTSIDE)
    if name in outside:
        return outside[name]
    _, block, rest = name.split(".", 2)
    return f"blocks.{block}.{inverse(PROJECTIONS)[rest]}"
