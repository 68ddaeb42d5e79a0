"""Reads LoRA files of other programs: musubi-tuner and kohya (`lora_unet_…`, `lora_down`/`lora_up` and an alpha per module),
ComfyUI, diffusion-pipe and ai-toolkit (`diffusion_model.…`), DiffSynth-Studio (`….lora_A.default.weight`), raw peft
(`base_model.model.…` with an `adapter_config.json`) and diffusers; of all projections or of some, in one rank or several.

A name is taken apart by tables: prefix, module, part. What is in no table is named in an error, never passed over.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from scenes.errors import InputError
from trainer.control.config import MAX_RANK
from trainer.weights.key_names import PROJECTIONS
from trainer.weights.strict import printable
from trainer.weights.weights_file import FLOATS, check_finite, read_header, read_tensors

PREFIXES = ("base_model.model.", "model.diffusion_model.", "diffusion_model.", "transformer.", "lora_unet_", "")
PARTS = {
    ".lora_A.weight": "down",
    ".lora_A.default.weight": "down",
    ".lora_down.weight": "down",
    ".lora.down.weight": "down",
    ".lora_B.weight": "up",
    ".lora_B.default.weight": "up",
    ".lora_up.weight": "up",
    ".lora.up.weight": "up",
    ".lora_B.bias": "up_bias",
    ".diff_b": "bias",
    ".alpha": "alpha",
}
OUTSIDE = {  # projections outside the blocks: original name → diffusers' name
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "head.head": "proj_out",
}
BLOCK = re.compile(r"(?:^|[._])blocks[._](\d{1,4})[._]")
PADDED_BYTES, PADDED_TIMES = 2**33, 4  # one rank for all may take so much, or so many times what the file has
NORM_DIFFERENCE = re.compile(r"blocks\.\d+\.(?:self_attn\.norm_[qk]|cross_attn\.norm_[qk]|norm3)\.diff(?:_b)?")


@dataclass(frozen=True, kw_only=True)
class LoraModule:
    """The LoRA of one projection: `down` [R, I], `up` [O, R], alpha (R if not stated), and what is added to the bias [O]."""

    down: Tensor
    up: Tensor
    bias: Tensor | None
    alpha: float


@dataclass(frozen=True, kw_only=True)
class ForeignLora:
    """A LoRA by diffusers' module names; `notes` say what was assumed or left out."""

    path: Path
    modules: dict[str, LoraModule]
    notes: tuple[str, ...]

    @property
    def rank(self) -> int:
        """The largest rank of its modules."""
        return max(module.down.shape[0] for module in self.modules.values())


def read_lora(path: Path) -> ForeignLora:
    """Return the LoRA of a file, or of a folder with `adapter_config.json` or `pytorch_lora_weights.safetensors`.

    Raises InputError for what is no LoRA of a text-to-video Wan transformer, naming the first entries that are unknown.
    """
    file = file_of(path)
    header = read_header(file)
    for name, tensor in header.tensors.items():
        if tensor.dtype not in FLOATS and not name.endswith(".alpha"):
            raise InputError(f"{file}: {printable(name)} is {tensor.dtype}; weights are {', '.join(FLOATS)}")
    tensors = read_tensors(file)
    parts, notes = _sorted_out(tensors, file)
    settings = _Settings.beside(file, header.metadata, any(name.startswith("base_model.model.") for name in tensors))
    modules = {name: _module(name, own, settings, file) for name, own in sorted(parts.items())}
    return ForeignLora(path=path, modules=modules, notes=(*notes, *settings.notes))


def file_of(path: Path) -> Path:
    """Return the weight file of a LoRA that is a file, or a folder as peft and diffusers write it.

    Raises InputError for a folder without a LoRA.
    """
    if not path.is_dir():
        return path
    for name in ("adapter_model.safetensors", "pytorch_lora_weights.safetensors"):
        if (path / name).exists():
            return path / name
    raise InputError(f"{path} holds no LoRA (adapter_model.safetensors or pytorch_lora_weights.safetensors); give a file")


def _sorted_out(tensors: Mapping[str, Tensor], file: Path) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """Return the tensors by module and part, and notes on what is left out."""
    layers = 1 + max((int(match[1]) for name in tensors if (match := BLOCK.search(name))), default=-1)
    table = _module_table(layers)
    parts: dict[str, dict[str, Tensor]] = {}
    unknown, norms = [], 0
    for name, tensor in tensors.items():
        prefix = next(prefix for prefix in PREFIXES if name.startswith(prefix))
        bare = name.removeprefix(prefix)
        suffix = next((suffix for suffix in PARTS if bare.endswith(suffix)), None)
        module = table.get(bare.removesuffix(suffix)) if suffix is not None else None
        if module is not None and suffix is not None:
            if PARTS[suffix] in parts.setdefault(module, {}):
                raise InputError(f"{file} has {printable(name)} twice, under different names; give one LoRA")
            parts[module][PARTS[suffix]] = tensor
        elif NORM_DIFFERENCE.fullmatch(bare):
            norms += 1
        else:
            unknown.append(name)
    if unknown or not parts:
        first = ", ".join(printable(name, 80) for name in sorted(unknown)[:3]) or "no tensor"
        raise InputError(
            f"{file} is no LoRA for a text-to-video Wan transformer: {len(unknown)} of its {len(tensors)} names are unknown "
            f"({first}); LoRA of linear layers is read, as musubi-tuner, kohya, ComfyUI, DiffSynth, peft and diffusers write it"
        )
    return parts, [f"{norms} differences of norms, which diffusers leaves out too"] if norms else []


def _module_table(layers: int) -> dict[str, str]:
    """Return every spelling of a module's name → diffusers' name: original or diffusers', with dots or with underscores."""
    names = dict(OUTSIDE)
    for block in range(layers):
        names |= {f"blocks.{block}.{old}": f"blocks.{block}.{new}" for old, new in PROJECTIONS.items()}
    table = names | {new: new for new in names.values()}
    return table | {spelling.replace(".", "_"): new for spelling, new in table.items()}


@dataclass(frozen=True)
class _Settings:
    """What a file's metadata or `adapter_config.json` say of alphas: peft's entries."""

    tree: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    @classmethod
    def beside(cls, file: Path, metadata: Mapping[str, str], raw_peft: bool) -> _Settings:
        config = file.parent / "adapter_config.json"
        try:
            if raw_peft and config.is_file():
                tree = json.loads(config.read_bytes())
            else:
                stored = json.loads(metadata.get("lora_adapter_metadata", "{}"))
                tree = {name.removeprefix("transformer."): value for name, value in stored.items()}
            if not isinstance(tree, dict) or not isinstance(tree.get("alpha_pattern") or {}, dict):
                raise ValueError("no JSON object")
        except (ValueError, AttributeError, RecursionError, OSError) as error:
            raise InputError(f"the settings of {file} cannot be read ({printable(error)}); make or fetch it again") from error
        if raw_peft and not config.is_file():
            return cls({}, ("peft's adapter_config.json is not beside it: alpha is taken to be the rank",))
        if tree.get("use_dora"):
            raise InputError(f"{file} is a DoRA, whose magnitudes are not read; give a plain LoRA")
        return cls(tree)

    def alpha(self, module: str, rank: int) -> float:
        """Return a module's alpha in the sense of alpha / rank."""
        pattern = self.tree.get("alpha_pattern") or {}
        found = [value for name, value in pattern.items() if re.fullmatch(rf"(?:.*\.)?{re.escape(name.lstrip('^'))}", module)]
        alpha = found[0] if found else self.tree.get("lora_alpha", rank)
        if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not abs(alpha) < sys.float_info.max:
            raise InputError(f"lora_alpha of {module} is {printable(alpha, 40)}; it must be a finite number")
        return float(alpha) * math.sqrt(rank) if self.tree.get("use_rslora") else float(alpha)


def _module(name: str, parts: Mapping[str, Tensor], settings: _Settings, file: Path) -> LoraModule:
    """Return one module's LoRA, its shapes checked against each other."""
    missing = [part for part in ("down", "up") if part not in parts]
    if missing:
        raise InputError(f"{file}: {name} has no {missing[0]} projection; make or fetch it again")
    down, up = parts["down"], parts["up"]
    bias = parts.get("bias", parts.get("up_bias"))
    fits = down.ndim == up.ndim == 2 and down.shape[0] == up.shape[1] and 0 not in (*down.shape, *up.shape)
    if not fits or (bias is not None and bias.shape != up.shape[:1]):
        shapes = [list(part.shape) for part in (down, up, *([] if bias is None else [bias]))]
        raise InputError(f"{file}: {name} has matrices of shapes {shapes}, which do not fit each other; fetch it again")
    rank = down.shape[0]
    if rank > MAX_RANK:
        raise InputError(f"{file}: {name} has rank {rank}; at most {MAX_RANK} is read: resize it to a smaller rank")
    given = parts.get("alpha")
    if given is not None and given.numel() != 1:
        raise InputError(f"{file}: the alpha of {name} has {given.numel()} values; it must be one number")
    alpha = float(given) if given is not None else settings.alpha(name, rank)
    if not math.isfinite(alpha):
        raise InputError(f"{file}: the alpha of {name} is {alpha}; it must be a finite number")
    if "up_bias" in parts:  # peft scales it as it does the matrices; ComfyUI's difference is whole
        bias = parts["up_bias"] * (alpha / rank)
    return LoraModule(down=down, up=up, bias=bias, alpha=alpha)


def check_padding(lora: ForeignLora, values: int) -> None:
    """Raise InputError where bringing a LoRA's modules to one rank takes `values` float32 numbers: far more than it has."""
    own = sum(module.down.numel() + module.up.numel() for module in lora.modules.values())
    if 4 * values > PADDED_BYTES and values > PADDED_TIMES * own:
        ranks = {module.down.shape[0] for module in lora.modules.values()}
        raise InputError(
            f"{lora.path} would take {4e-9 * values:.1f} GB in one rank: it has {4e-9 * own:.1f} GB in ranks {min(ranks)} to "
            f"{max(ranks)}; resize it to a smaller rank"
        )


def plain_weights(lora: ForeignLora, weight: float = 1.0) -> dict[str, Tensor]:
    """Return a LoRA under peft's names, all modules in one rank (padded with zeros) and with an alpha that is the rank.

    What alpha said goes into the up projections, in float32; so does `weight`. Raises InputError where that takes more memory
    than it is worth.
    """
    rank = lora.rank
    check_padding(lora, rank * sum(module.down.shape[1] + module.up.shape[0] for module in lora.modules.values()))
    biased = any(module.bias is not None for module in lora.modules.values())
    weights: dict[str, Tensor] = {}
    for name, module in lora.modules.items():
        scale = weight * module.alpha / module.down.shape[0]
        down_RI, up_OR = module.down.float(), scale * module.up.float()
        lacking = rank - down_RI.shape[0]
        weights[f"{name}.lora_A.weight"] = torch.nn.functional.pad(down_RI, (0, 0, 0, lacking)).contiguous()
        weights[f"{name}.lora_B.weight"] = torch.nn.functional.pad(up_OR, (0, lacking)).contiguous()
        if biased:
            bias = module.bias.float() * weight if module.bias is not None else torch.zeros(up_OR.shape[0])
            weights[f"{name}.lora_B.bias"] = bias
    check_finite(str(lora.path), weights)
    return weights


def check_fits(lora: ForeignLora, transformer: nn.Module) -> None:
    """Raise InputError for a LoRA of projections that a transformer does not have, or has in other sizes."""
    for name, module in lora.modules.items():
        try:
            layer = transformer.get_submodule(name)
        except AttributeError:
            raise InputError(
                f"LoRA {lora.path} changes {name}, which this backbone lacks; give one for this backbone"
            ) from None
        layer = layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer
        own, given = (layer.in_features, layer.out_features), (module.down.shape[1], module.up.shape[0])
        if own != given:
            raise InputError(
                f"LoRA {lora.path} is for another backbone: {name} has {given[0]} inputs and {given[1]} outputs in it, "
                f"{own[0]} and {own[1]} here; give one for this backbone"
            )
