"""The weight files of an adapter's folder: which there are, what their headers must say, and how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mode

from torch import Tensor

from scenes.errors import InputError
from trainer.adapters.card import AdapterCard
from trainer.backbones.load import EXPERTS
from trainer.control.config import MAX_BLOCKS, MAX_WIDTH, ControlConfig
from trainer.control.lora import lora_modules
from trainer.formats.published import control_shapes
from trainer.weights.strict import check_exact
from trainer.weights.weights_file import TensorHeader, check_floats, read_header, read_tensors

CONTROL_FILE = "control_adapter.safetensors"
LORA_FILE = "pytorch_lora_weights.safetensors"
LORA_PREFIX = "transformer."
RESTORE = "restore the file that the trainer wrote"


@dataclass(frozen=True, kw_only=True)
class ExpertWeights:
    """The weights of one transformer's adapter: control attention under its file's names, LoRA under peft's."""

    control: dict[str, Tensor]
    lora: dict[str, Tensor]


def expert_folder(folder: Path, expert: str) -> Path:
    """Return where the weights of an expert lie in an adapter's folder."""
    return folder if expert == EXPERTS[0] else folder / expert


def weight_files(card: AdapterCard) -> tuple[str, ...]:
    """Return the names of all weight files of an adapter, relative to its folder, sorted."""
    names = [CONTROL_FILE] if card.config.control is not None else []
    names += [LORA_FILE] if card.config.lora is not None else []
    folders = ["" if expert == EXPERTS[0] else f"{expert}/" for expert in card.backbone.fingerprints]
    return tuple(sorted(f"{folder}{name}" for folder in folders for name in names))


def peft_names(lora: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return a diffusers LoRA file's weights without their `transformer.` prefix; raises InputError for one without it."""
    _check_prefix(lora, source)
    return {name.removeprefix(LORA_PREFIX): tensor for name, tensor in lora.items()}


def _check_prefix(names: Mapping[str, object], source: str) -> None:
    strangers = [name for name in names if not name.startswith(LORA_PREFIX)]
    if strangers:
        raise InputError(
            f"{source} has weights outside '{LORA_PREFIX}', such as {strangers[0]}; give a LoRA of the transformer only"
        )


def read_expert(folder: Path, card: AdapterCard) -> ExpertWeights:
    """Return the weights of one transformer's adapter; raises InputError for values that are not finite."""
    control = read_tensors(folder / CONTROL_FILE) if card.config.control is not None else {}
    lora = read_tensors(folder / LORA_FILE) if card.config.lora is not None else {}
    return ExpertWeights(control=control, lora=peft_names(lora, str(folder / LORA_FILE)))


def check_headers(folder: Path, card: AdapterCard) -> None:
    """Raise InputError for weight files of one transformer whose names, shapes or number formats are not those of the card."""
    if card.config.control is not None:
        path = folder / CONTROL_FILE
        tensors = read_header(path, RESTORE).tensors
        check_exact(str(path), control_shapes(card.config.control, _width(card.config.control, tensors)), tensors)
        check_floats(str(path), tensors)
    if card.config.lora is not None:
        path = folder / LORA_FILE
        tensors = read_header(path, RESTORE).tensors
        _check_prefix(tensors, str(path))
        check_lora_header(str(path), {name.removeprefix(LORA_PREFIX): t for name, t in tensors.items()}, card.config.lora.rank)


def _width(config: ControlConfig, tensors: Mapping[str, TensorHeader]) -> int:
    """Return the model width that most tensors of a control adapter speak of."""
    names = ("key_norm.weight", 1), ("key_up.weight", config.tokens), ("value_up.weight", config.tokens)
    found = [(tensors.get(f"blocks.{block}.{name}"), share) for block in config.blocks for name, share in names]
    return mode([tensor.shape[0] // share if tensor is not None and tensor.shape else 0 for tensor, share in found])


def check_lora_header(source: str, tensors: Mapping[str, TensorHeader], rank: int) -> None:
    """Raise InputError unless a LoRA covers every projection of blocks 0 to n with matrices of this rank."""
    parts = [name.split(".") for name in tensors]
    blocks = {part[1] for part in parts if part[0] == "blocks" and len(part) > 1 and part[1].isdecimal()}
    layers = 1 + max((int(block) for block in blocks if len(block) <= len(str(MAX_BLOCKS))), default=-1)
    expected: dict[str, tuple[int, ...]] = {}
    for module in lora_modules(min(layers, MAX_BLOCKS)):
        for part in ("lora_A", "lora_B"):
            name = f"{module}.{part}.weight"
            own = tensors[name].shape if name in tensors else ()
            width = own[1 if part == "lora_A" else 0] if len(own) == 2 else 0
            width = min(width, MAX_WIDTH)
            expected[name] = (rank, width) if part == "lora_A" else (width, rank)
    check_exact(source, expected, tensors)
    check_floats(source, tensors)
