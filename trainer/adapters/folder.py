"""An adapter's folder: written whole or not at all, and read strictly.

control.json                          what it is, with the sha256 of each weight file (`trainer.adapters.card`)
control_adapter.safetensors           embedding and control attention
pytorch_lora_weights.safetensors      LoRA, as diffusers' `load_lora_weights` reads it
README.md                             model card
transformer_2/…                       both weight files of the second expert, where it was adapted too
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import WanPipeline, WanTransformer3DModel
from safetensors.torch import save_file
from torch import Tensor

from generator.io.atomic import file_digest, fsync_folder, share
from generator.io.scratch import scratch_folder
from scenes.errors import InputError
from trainer.adapters.adapter_weights import CONTROL_FILE, LORA_FILE, expert_folder
from trainer.adapters.card import CARD, AdapterCard, BackboneId, card_bytes, installed_versions, model_card, parse_card
from trainer.adapters.saved import SavedAdapter
from trainer.backbones.load import EXPERTS, fingerprint
from trainer.control.attach import WanAdapter, attach
from trainer.control.lora import LORA_NAME
from trainer.weights.strict import check_exact, printable

PLAIN_SETTINGS = ("peft_type", "r", "lora_alpha", "target_modules", "lora_dropout", "bias")

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of linux/fcntl.h and linux/fs.h


def save_adapter(
    folder: Path,
    adapters: Mapping[str, WanAdapter],
    *,
    backbone_id: str,
    step: int,
    dataset_version: str | None = None,
    recipe: Mapping[str, Any] | None = None,
    weights: Mapping[str, Mapping[str, Tensor]] | None = None,
    fingerprints: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> AdapterCard:
    """Write the adapters of a pipeline's experts (`{"transformer": adapter}`) to a folder and return its card.

    `weights` are written in the place of the adapters' own (averages, or what a sharded module holds), under the names of
    `WanAdapter.parameters`; `fingerprints` are the backbone's, taken before it was sharded.
    All files are written and synced beside it and then renamed into place; what a killed save of this folder left is removed.
    Raises InputError if the folder exists and `overwrite` is not set, and if the experts' adapters differ in configuration;
    when the disk is full, nothing is left behind.
    """
    configs = {adapter.config for adapter in adapters.values()}
    if len(configs) != 1 or not set(adapters) <= set(EXPERTS):
        raise InputError(
            f"adapters of {', '.join(adapters) or 'no expert'} cannot share a folder; give one configuration for {EXPERTS}"
        )
    if folder.exists() and not overwrite:
        raise InputError(f"{folder} exists; choose another folder, or allow it to be replaced")
    backbone = BackboneId(
        id=printable(backbone_id, 4096),
        fingerprints=dict(fingerprints or {name: fingerprint(a.transformer) for name, a in adapters.items()}),
    )
    with scratch_folder(folder) as scratch:
        for name, adapter in adapters.items():
            _write_weights(expert_folder(scratch, name), adapter, adapter.parameters() if weights is None else weights[name])
        files = sorted(scratch.rglob("*.safetensors"))
        card = AdapterCard(
            config=configs.pop(),
            backbone=backbone,
            dataset_version=dataset_version,
            recipe=dict(recipe) if recipe is not None else None,
            step=step,
            versions=installed_versions(),
            weights={path.relative_to(scratch).as_posix(): file_digest(path) for path in files},
        )
        (scratch / CARD).write_bytes(card_bytes(card))
        card = parse_card(card_bytes(card), folder / CARD)
        (scratch / "README.md").write_text(model_card(card))
        share(scratch)
        _sync(scratch)
        _move_into_place(scratch, folder)
    return card


def attach_saved(
    transformers: Mapping[str, WanTransformer3DModel],
    saved: SavedAdapter,
    *,
    allow_other_backbone: bool = False,
    dtype: torch.dtype | None = None,
) -> dict[str, WanAdapter]:
    """Put a saved adapter on a pipeline's transformers, frozen; returns an adapter per expert.

    Raises InputError that says which: another backbone than it was trained on (unless allowed), an expert the pipeline lacks,
    missing or unexpected weights, wrong shapes.
    """
    card, folder = saved.card, saved.folder
    check_experts(saved, transformers)
    for expert, expected in card.backbone.fingerprints.items():
        if not allow_other_backbone and fingerprint(transformers[expert]) != expected:
            raise InputError(
                f"adapter {folder} was trained on {card.backbone.id} and this backbone's '{expert}' is another one; "
                "load that backbone, or allow another explicitly"
            )
    adapters: dict[str, WanAdapter] = {}
    try:
        for name, read in saved.weights().items():
            adapters[name] = attach(transformers[name], card.config, dtype=dtype)
            adapters[name].load(read.control, read.lora, str(folder))
            for parameter in adapters[name].parameters().values():
                parameter.requires_grad_(False)
    except InputError:
        for adapter in adapters.values():
            adapter.detach()
        raise
    return adapters


def check_experts(saved: SavedAdapter, transformers: Mapping[str, WanTransformer3DModel]) -> None:
    """Raise InputError for an adapter of a transformer that a backbone lacks."""
    backbone = saved.card.backbone
    for expert in backbone.fingerprints:
        if expert not in transformers:
            raise InputError(
                f"adapter {saved.folder} adapts '{expert}', which this backbone lacks; it was trained on {backbone.id}"
            )


def _cpu(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu").contiguous() for name, tensor in parameters.items()}


def _write_weights(folder: Path, adapter: WanAdapter, weights: Mapping[str, Tensor]) -> None:
    folder.mkdir(exist_ok=True)
    control, lora = adapter.control_parameters(), adapter.lora_parameters()
    shapes = {name: tuple(parameter.shape) for name, parameter in {**control, **lora}.items()}
    check_exact(f"what is to be written to {folder.name}", shapes, weights)
    if adapter.config.control is not None:
        save_file(_cpu({name: weights[name] for name in control}), folder / CONTROL_FILE, metadata={"format": "pt"})
    if adapter.config.lora is not None:
        settings = plain_settings(adapter.transformer.peft_config[LORA_NAME].to_dict())
        WanPipeline.save_lora_weights(
            folder,
            transformer_lora_layers=_cpu({name: weights[name] for name in lora}),
            weight_name=LORA_FILE,
            transformer_lora_adapter_metadata=settings,
        )
        _settle(folder / LORA_FILE)


def plain_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return of a LoRA's settings what every peft knows: diffusers hands them all to the LoraConfig of whoever reads the file,
    and that of an older peft takes no field of a newer one."""
    return {name: settings[name] for name in PLAIN_SETTINGS}


def _settle(path: Path) -> None:
    """Sort the metadata of a safetensors file, which its library writes in a random order: the same weights, the same bytes."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    settled = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    settled += b" " * (-len(settled) % 8)  # tensors stay aligned; their offsets count from the header's end
    path.write_bytes(len(settled).to_bytes(8, "little") + settled + data[8 + length :])


def _sync(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step; return whether the system and the disk can (Linux, most disks)."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    return rename is not None and rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0


def _move_into_place(scratch: Path, folder: Path) -> None:
    """Make a whole folder the adapter; where there is one already, it is one or the other at any instant, if the system can."""
    if not folder.exists():
        scratch.rename(folder)
    elif not _exchange(scratch, folder):
        with scratch_folder(folder.with_name(f"{folder.name}-old")) as retired:
            folder.rename(retired / folder.name)
            scratch.rename(folder)
    fsync_folder(folder.parent)
