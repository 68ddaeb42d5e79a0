"""Latents and text embeddings, computed once: files named by the hash of everything that they depend on.

A changed clip, caption, encoder, dtype or length has another name, so nothing can be stale; what did not change is found.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from generator.io.atomic import write_atomic

FORMAT = 1  # part of every name; raise it when what is computed from the same inputs changes
LOG = logging.getLogger("stopdown.cache")


def module_digest(module: nn.Module) -> str:
    """Return SHA-256 of a module's weights: names, dtypes, shapes and every byte."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def cache_key(parts: Mapping[str, str | int]) -> str:
    """Return the name of what depends on these parts and on nothing else."""
    return hashlib.sha256(json.dumps({"format": FORMAT, **parts}, sort_keys=True).encode()).hexdigest()


class TensorCache:
    """A folder of tensors by key. Several processes may share it: files appear whole, and the first one stays."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, key: str) -> Path:
        """Return where a key's tensor is kept."""
        return self.root / key[:2] / f"{key}.safetensors"

    def has(self, key: str) -> bool:
        """Return whether a key's file is there; `read` verifies it."""
        return self.path(key).is_file()

    def read(self, key: str) -> Tensor | None:
        """Return a key's tensor, or None if it is absent or damaged; a damaged file is reported and removed."""
        path = self.path(key)
        try:
            with safe_open(path, framework="pt") as file:
                tensor = file.get_tensor("tensor")
                recorded = (file.metadata() or {}).get("sha256")
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError) as error:
            self._discard(path, str(error))
            return None
        if hashlib.sha256(_bytes(tensor)).hexdigest() != recorded:
            self._discard(path, "its bytes are not the ones written")
            return None
        return tensor

    def write(self, key: str, tensor: Tensor) -> None:
        """Keep a tensor under a key: temporary file, fsync, rename. `tensor` may have any shape `[...]`."""
        path = self.path(key)
        kept = tensor.detach().to("cpu").contiguous()
        data = save({"tensor": kept}, metadata={"sha256": hashlib.sha256(_bytes(kept)).hexdigest()})
        write_atomic(path, data)

    def remember(self, key: str, compute: Callable[[], Tensor]) -> Tensor:
        """Return a key's tensor, computing and keeping it if it is not there."""
        found = self.read(key)
        if found is not None:
            return found
        computed = compute().detach().to("cpu").contiguous()
        self.write(key, computed)
        return computed

    def _discard(self, path: Path, why: str) -> None:
        LOG.warning("cached tensor %s is damaged (%s); it is computed again", path, why)
        path.unlink(missing_ok=True)


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().to("cpu").contiguous().flatten()
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
