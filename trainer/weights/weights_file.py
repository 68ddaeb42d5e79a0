"""Opens safetensors files that others wrote: the header is read first, so that nothing is allocated for what does not fit."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from scenes.errors import InputError
from trainer.weights.strict import printable

HEADER_BYTES = 16 * 2**20  # a LoRA of 40 blocks has 0.1 MB, a whole 14B transformer 0.2 MB
FLOATS = ("F16", "BF16", "F32", "F64")


@dataclass(frozen=True)
class TensorHeader:
    """What a file says of a tensor before it is read."""

    shape: tuple[int, ...]
    dtype: str  # as safetensors names it: F32, BF16, I64


@dataclass(frozen=True)
class Header:
    """The header of a safetensors file: tensors by name, and the file's metadata."""

    tensors: dict[str, TensorHeader]
    metadata: dict[str, str]


def read_header(path: Path, advice: str = "give an adapter's folder or a .safetensors file") -> Header:
    """Return a safetensors file's header; offsets and the file's length were held against it, no tensor was read.

    Raises InputError for what is absent, no ordinary file, no safetensors file, cut short, or has a header beyond any model's.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path} is no file; {advice}")
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > HEADER_BYTES:
            raise InputError(
                f"{path} cannot be read: it is not a readable safetensors file (its header would have {length:,} bytes, "
                f"at most {HEADER_BYTES:,} are read); {advice}"
            )
        with safe_open(path, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
            tensors = {name: TensorHeader(tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
            return Header(tensors=tensors, metadata=dict(opened.metadata() or {}))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; {advice}") from None
    except (OSError, SafetensorError, ValueError) as error:  # ValueError: a path that cannot be, a name that is no text
        words = printable(error)
        raise InputError(f"{path} cannot be read: it is not a readable safetensors file ({words}); {advice}") from error


def check_floats(source: str, tensors: Mapping[str, TensorHeader]) -> None:
    """Raise InputError for a tensor that holds no floating-point numbers."""
    for name, header in tensors.items():
        if header.dtype not in FLOATS:
            raise InputError(f"{source}: {printable(name)} is {header.dtype}; weights are {', '.join(FLOATS)}")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file whose header was read and fits; raises InputError for weights that are not finite."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read ({printable(error)}); restore the file") from error
    check_finite(str(path), tensors)
    return tensors


def check_finite(source: str, tensors: Mapping[str, Tensor]) -> None:
    """Raise InputError for a tensor with NaN or infinite values, which would go into every picture."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            count = int((~torch.isfinite(tensor)).sum())
            raise InputError(
                f"{source}: {count:,} of {tensor.numel():,} values of {printable(name)} are not finite (NaN or infinite); the "
                "file is damaged or the training diverged: restore it, or use an earlier checkpoint"
            )
