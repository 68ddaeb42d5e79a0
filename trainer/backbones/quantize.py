"""Packs a frozen backbone's projections into fewer bytes: fp8 and int8 by torchao, nf4 by bitsandbytes.

Only the projections of the blocks are packed, the ones that carry the LoRA: everything else is small (1 % of 14B), and the
backbone's fingerprint stays as it is. Weights are unpacked to the compute dtype where they are used; activations are not
rounded, so that gradients flow through. Adapters put on afterwards keep their own dtype.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from diffusers import BitsAndBytesConfig, PipelineQuantizationConfig, TorchAoConfig, WanPipeline, WanTransformer3DModel
from torch import nn

from scenes.errors import InputError, StopdownError, closest
from trainer.backbones.load import EXPERTS, experts, load_backbone

KEPT = ("condition_embedder", "proj_out")  # linear layers outside the blocks
FP8_COMPILED = (8, 9)  # compute capability from which the compiler's kernels know float8_e4m3


class Quantization(StrEnum):
    """How the frozen weights are held: as loaded, 8-bit floats, 8-bit integers (both per row), or 4-bit NormalFloat."""

    NONE = "none"
    FP8 = "fp8"
    INT8 = "int8"
    NF4 = "nf4"


# Bytes per packed weight with its scales: one float32 a row of at least 1,536 columns; nf4 keeps an 8-bit scale for 64
# weights and a float32 for 256 of those scales (QLoRA, section 3, "double quantization": 0.127 bits).
BYTES_PER_WEIGHT: Mapping[Quantization, float] = MappingProxyType(
    {Quantization.FP8: 1.0, Quantization.INT8: 1.0, Quantization.NF4: 0.5 + 0.127 / 8}
)
PACKAGES: Mapping[Quantization, str] = MappingProxyType(
    {Quantization.FP8: "torchao", Quantization.INT8: "torchao", Quantization.NF4: "bitsandbytes"}
)


def check_quantization(kind: str, device: torch.device, *, compiled: bool = False) -> Quantization:
    """Return the kind; raises InputError for an unknown one, a package that is absent, and what a device cannot do.

    All kinds run on the CPU and on every CUDA device, except fp8 in compiled blocks before compute capability 8.9.
    """
    if kind not in list(Quantization):
        raise InputError(
            f"quantization '{kind}' is unknown{closest(kind, list(Quantization))}; allowed: {', '.join(Quantization)}"
        )
    found = Quantization(kind)
    if found == Quantization.NONE:
        return found
    package = PACKAGES[found]
    if importlib.util.find_spec(package) is None:
        raise InputError(f"quantization '{found}' needs {package}, which is not installed: pip install {package}")
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"quantization '{found}' does not run on device '{device}'; use cuda or cpu, or quantization 'none'")
    if found == Quantization.FP8 and compiled and device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability < FP8_COMPILED:
            raise InputError(
                f"compiled blocks cannot read fp8 weights on {torch.cuda.get_device_name(device)} (compute capability "
                f"{capability[0]}.{capability[1]}, 8.9 is needed); use int8, nf4, or no compilation"
            )
    return found


def loading_options(kind: Quantization, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Return what to give `WanPipeline.from_pretrained` so that the experts come packed; other components get `dtype`.

    bitsandbytes' loader refuses a machine without CUDA: there, nf4 is packed after loading (`load_quantized`).
    """
    options: dict[str, Any] = {"dtype": dtype}
    if kind != Quantization.NONE and not _after_loading(kind, device):
        options["quantization_config"] = PipelineQuantizationConfig(quant_mapping=dict.fromkeys(EXPERTS, _config(kind, dtype)))
    return options


def load_quantized(
    name: str,
    kind: str = "none",
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    vae_dtype: torch.dtype | None = None,
    compiled: bool = False,
    cache: Path | None = None,
    **options: Any,
) -> WanPipeline:
    """Load a backbone (`trainer.backbones.load.load_backbone`) with its experts packed; `device` is where they will run.

    The autoencoder takes `dtype` too, or `vae_dtype`.

    Nothing is moved to the device but by bitsandbytes, which packs there. Raises InputError as `check_quantization` and
    `load_backbone` do.
    """
    target = torch.device(device)
    checked = check_quantization(kind, target, compiled=compiled)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*transformer_2.*ignored")  # named for both experts, present or not
        chosen = loading_options(checked, target, dtype)
        if vae_dtype is not None:
            chosen["dtype"] = {"vae": vae_dtype, "default": dtype}
        pipe = load_backbone(name, cache=cache, **{**chosen, **options})
    if _after_loading(checked, target):
        for expert in experts(pipe).values():
            quantize_in_place(expert, checked, dtype)
    return pipe


def quantize_in_place(transformer: WanTransformer3DModel, kind: Quantization, dtype: torch.dtype = torch.bfloat16) -> None:
    """Pack the blocks' projections of a transformer without an adapter, on the device where they are.

    Raises StopdownError for a transformer that carries a LoRA already.
    """
    if kind == Quantization.NONE:
        return
    if getattr(transformer, "peft_config", None):
        raise StopdownError("this transformer carries a LoRA already; pack the backbone first, then put adapters on it")
    if kind == Quantization.NF4:
        _pack_nf4(transformer, dtype)
        return
    from torchao.quantization import quantize_

    wanted = {id(layer) for _, _, layer in _projections(transformer)}
    quantize_(transformer, _torchao_config(kind), filter_fn=lambda module, _name: id(module) in wanted)


def weight_bytes(transformer: WanTransformer3DModel) -> int:
    """Return the bytes that a transformer's own parameters take, scales of packed ones included; adapters count."""
    return sum(_stored_bytes(parameter) for parameter in transformer.parameters())


def _stored_bytes(tensor: Any) -> int:  # a Tensor, or a subclass with fields of its own
    if type(tensor).__name__ == "Params4bit":
        state = tensor.quant_state
        parts = [tensor.data, state.absmax, *([state.state2.absmax] if state.nested else [])]
        return sum(part.numel() * part.element_size() for part in parts)
    if hasattr(tensor, "qdata"):  # torchao's
        return sum(part.numel() * part.element_size() for part in (tensor.qdata, tensor.scale))
    return tensor.numel() * tensor.element_size()


def _after_loading(kind: Quantization, device: torch.device) -> bool:
    return kind == Quantization.NF4 and device.type != "cuda"


def _config(kind: Quantization, dtype: torch.dtype) -> BitsAndBytesConfig | TorchAoConfig:
    if kind == Quantization.NF4:
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=list(KEPT),
        )
    return TorchAoConfig(_torchao_config(kind), modules_to_not_convert=list(KEPT))


def _torchao_config(kind: Quantization) -> Any:
    # Weights only: torchao's kernels for rounded activations have no backward pass.
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

    return Float8WeightOnlyConfig() if kind == Quantization.FP8 else Int8WeightOnlyConfig()


def _projections(transformer: WanTransformer3DModel) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """Yield parent, name and layer of every linear layer of the blocks."""
    for parent in transformer.blocks.modules():
        for name, layer in parent.named_children():
            if isinstance(layer, nn.Linear):
                yield parent, name, layer


def _pack_nf4(transformer: WanTransformer3DModel, dtype: torch.dtype) -> None:
    import bitsandbytes as bnb

    for parent, name, layer in list(_projections(transformer)):
        packed = bnb.nn.Linear4bit(
            layer.in_features, layer.out_features, bias=layer.bias is not None, compute_dtype=dtype, quant_type="nf4",
            compress_statistics=True, device="meta",
        )  # fmt: skip
        weight = bnb.nn.Params4bit(
            layer.weight.detach().to(dtype), requires_grad=False, quant_type="nf4", compress_statistics=True, module=packed
        )
        packed.weight, packed.bias = weight.to(layer.weight.device), layer.bias
        packed.requires_grad_(False)
        setattr(parent, name, packed)
    transformer.is_loaded_in_4bit = True  # how peft learns that it is to wrap bitsandbytes' layers
