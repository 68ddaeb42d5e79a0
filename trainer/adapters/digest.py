"""Tells one adapter's folder from another."""

from __future__ import annotations

import hashlib
from pathlib import Path

from trainer.adapters.card import CARD


def adapter_digest(folder: Path) -> str:
    """Return the sha256 of an adapter's weights and control.json: of every such file's name and bytes, sorted by name."""
    digest = hashlib.sha256()
    for path in sorted([*folder.rglob("*.safetensors"), *folder.glob(CARD)]):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
