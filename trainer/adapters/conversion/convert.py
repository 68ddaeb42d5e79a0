"""Writes an adapter in another program's format, and says what that format cannot carry."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import save
from torch import Tensor

from generator.io.atomic import fsync_folder, write_temporary
from generator.io.scratch import scratch_folder
from scenes.errors import InputError
from trainer.adapters.conversion.restate import preset_axes, restate
from trainer.adapters.conversion.sources import AXES_KEY, SETTINGS_KEY, AdapterFormat, Source
from trainer.adapters.folder import save_adapter
from trainer.backbones.load import load_component
from trainer.control.attach import attach
from trainer.control.config import AdapterConfig
from trainer.control.laws import AxisControl, NoLaw
from trainer.formats.comfyui import to_comfyui
from trainer.formats.published import original_settings, write_published

METHOD_BLOCKS = tuple(range(27, 40))  # of 40: what the method's inference code assumes in its decoupled mode


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What was written, what the format could not say of it, a sentence each, the lines of TOML that its reader needs."""

    path: Path
    format: AdapterFormat
    tensors: int
    left_out: tuple[str, ...]
    settings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # what was assumed or filled up


def convert(
    source: Source,
    target: Path,
    to: str,
    *,
    preset: str = "keep",
    backbone: str | None = None,
    expert: str = "transformer",
    cache: Path | None = None,
) -> Converted:
    """Write an adapter to a new file, or as a folder for `diffusers`, and return what was written.

    `preset` is the meaning of the result's scalar (`trainer.adapters.conversion.restate`). A folder belongs to a backbone,
    which must be named (`backbone`; only `expert` of it is read). Raises InputError for a target that exists, a format that
    cannot hold the adapter, and a backbone that it does not fit.
    """
    if to not in list(AdapterFormat):
        raise InputError(f"format '{to}' is unknown; allowed are {', '.join(AdapterFormat)}")
    if os.path.lexists(target):
        raise InputError(f"{target} exists; give a new name")
    if source.format == to:
        raise InputError(f"{source.path} is in the format '{to}' already; choose another with --to")
    if preset != "keep" and (source.config.control is None or to == AdapterFormat.COMFYUI):
        raise InputError(f"preset '{preset}' restates a control, and none goes from {source.path} to {target}; leave it out")
    stated = _stated(source, preset)
    if to == AdapterFormat.DIFFUSERS:
        return _to_folder(stated, target, backbone, expert, cache)
    check_file(target)
    write = _to_published if to == AdapterFormat.PUBLISHED else _to_comfyui
    return write(stated, target)


def check_file(target: Path) -> None:
    """Raise InputError for the name of a new file that says another kind than safetensors."""
    if target.suffix != ".safetensors":
        raise InputError(f"{target} is no .safetensors file; give a name like {target.with_suffix('.safetensors')}")


def _stated(source: Source, preset: str) -> Source:
    """Return the adapter with its scalar under the laws of a preset."""
    control = source.config.control
    old = control.axes if control is not None else ()
    new = preset_axes(old, preset)
    if control is None or list(old) == list(new):
        return source
    config = AdapterConfig(control=control.model_copy(update={"axes": new}), lora=source.config.lora)
    return replace(source, config=config, control=restate(source.control, old, new))


def _to_published(source: Source, target: Path) -> Converted:
    weights = write_published(source.config, source.control, source.lora)
    control = source.config.control
    assert control is not None  # write_published refused otherwise
    axes, where = control.axes, condition_blocks(control.blocks, source.layers)
    metadata = {
        "format": "pt",
        SETTINGS_KEY: json.dumps(original_settings(control)),
        AXES_KEY: json.dumps([axis.model_dump(mode="json") for axis in axes]),
    }
    write_weights(target, weights, metadata)
    left_out = [_direction(axis) for axis in axes]
    if len(axes) > 1:
        left_out.append(f"the axes' names: its scalar's components are {', '.join(axis.name for axis in axes)}, in this order")
    left_out.append("the backbone, dataset version, step and recipe")
    if control.blocks != METHOD_BLOCKS:
        left_out.append(
            "its code's decoupled mode: that takes the control to be in blocks 27 to 39, and here it is in "
            f"{control.blocks[0]} to {control.blocks[-1]}; use its joint mode"
        )
    stated = {**original_settings(control), "fps_condition_blocks": where}
    return Converted(
        path=target,
        format=AdapterFormat.PUBLISHED,
        tensors=len(weights),
        left_out=tuple(left_out),
        settings=("[model]", *(f"{key} = {json.dumps(value)}" for key, value in stated.items())),
    )


def condition_blocks(blocks: Sequence[int], layers: int) -> str | int:
    """Return how the method's code is told which blocks have a control: its last third, or so many of its last ones.

    `layers` is how many there are, 0 where that is not known. Raises InputError for other blocks, which it would misplace.
    """
    end = layers or blocks[-1] + 1
    if tuple(blocks) != tuple(range(end - len(blocks), end)):
        raise InputError(
            f"the method's code has its control in the last blocks of a backbone, and this one's is in {list(blocks)} of "
            f"{layers or 'unknown'}; it would be read into others without a word. Keep this adapter in its folder"
        )
    return "deepest_third" if layers and len(blocks) == layers // 3 else len(blocks)


def _to_comfyui(source: Source, target: Path) -> Converted:
    if source.config.lora is None:
        raise InputError(f"{source.path} has no LoRA, and ComfyUI's format holds nothing else; convert it to published")
    weights = to_comfyui(source.lora, source.config.lora, source.layers)
    write_weights(target, weights, {"format": "pt"})
    left_out = ["the backbone, dataset version, step and recipe"]
    if source.config.control is not None:
        names = ", ".join(axis.name for axis in source.config.control.axes)
        left_out.insert(0, f"the control of {names}: stock ComfyUI applies the LoRA alone, in every block (mode lora_only)")
    return Converted(path=target, format=AdapterFormat.COMFYUI, tensors=len(weights), left_out=tuple(left_out))


def _to_folder(source: Source, target: Path, backbone: str | None, expert: str, cache: Path | None) -> Converted:
    if backbone is None:
        raise InputError(f"{source.path} does not name its backbone; give --backbone, which an adapter's folder belongs to")
    # bf16 is what the fingerprint is taken in; the adapter itself stays in float32
    transformer = load_component(WanTransformer3DModel, backbone, expert, dtype=torch.bfloat16, cache=cache)
    origin = {"converted": {"file": source.path.name, "format": str(source.format)}}
    save_folder(
        target, transformer, source.config, source.control, source.lora,
        backbone=backbone, expert=expert, source=source.path, origin=origin,
    )  # fmt: skip
    left_out = ("the step and dataset version",)
    tensors = len(source.control) + len(source.lora)
    return Converted(path=target, format=AdapterFormat.DIFFUSERS, tensors=tensors, left_out=left_out)


def save_folder(
    target: Path,
    transformer: WanTransformer3DModel,
    config: AdapterConfig,
    control: Mapping[str, Tensor],
    lora: Mapping[str, Tensor],
    *,
    backbone: str,
    expert: str,
    source: Path,
    origin: Mapping[str, object],
) -> None:
    """Write weights as the folder of an adapter of a backbone's transformer, which is used up; `origin` goes into its card."""
    adapter = attach(transformer, config, dtype=torch.float32)
    adapter.load(control, lora, str(source))
    save_adapter(target, {expert: adapter}, backbone_id=backbone, step=0, recipe=origin)


def _direction(axis: AxisControl) -> str:
    """Return what its reader must be told of a scalar."""
    if isinstance(axis.law, NoLaw):
        return f"what the scalar of {axis.name} means, which is not known here either"
    ends = f"c = -1 is {axis.format(-1.0)}, c = +1 is {axis.format(1.0)}"
    return f"the unit law of {axis.name} and its direction: {ends} in this file ({AXES_KEY} in its metadata says so)"


def write_weights(target: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a file of tensors, whole or not at all."""
    tensors = {name: tensor.contiguous() for name, tensor in weights.items()}
    with scratch_folder(target) as scratch:  # what a killed convert left is removed by the next one
        os.replace(write_temporary(scratch, save(tensors, metadata=dict(metadata)), mode=0o666), target)
        fsync_folder(target.parent)


def written_axes(axes: Sequence[AxisControl]) -> list[dict[str, str]]:
    """Return axes with their laws in words and their trained range in units."""
    return [
        {"axis": axis.name, "law": _law_words(axis), **{f"c = {c:g}": axis.format(c) for c in (-1.0, 0.0, 1.0)}}
        for axis in axes
    ]


def _law_words(axis: AxisControl) -> str:
    law = axis.law
    if law.kind == "log":
        return f"{axis.axis.format(law.neutral)} x {law.ratio:.4g}^c"
    if law.kind == "step":
        return f"{axis.axis.format(law.neutral)} {law.step:+.4g} c"
    if law.kind == "mired":
        return f"{law.neutral_mired:g} {law.mired_per_control:+g} c mired"
    return "none stated"
