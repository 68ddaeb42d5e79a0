"""The saved adapter of the method `control`: which weight files there are, and what must be in them."""

from __future__ import annotations

from pathlib import Path

from trainer.adapters.adapter_weights import ExpertWeights, check_headers, read_expert, weight_files
from trainer.adapters.card import AdapterCard


class ControlAdapter:
    """Control attention and LoRA in files of their own (`trainer.adapters.adapter_parts.AdapterParts`)."""

    card = AdapterCard

    def files(self, card: AdapterCard) -> tuple[str, ...]:
        """Return the names of all weight files of an adapter, relative to its folder, sorted."""
        return weight_files(card)

    def check_headers(self, folder: Path, card: AdapterCard) -> None:
        """Raise InputError for weight files of one transformer that are not as the card has them; no tensor is read."""
        check_headers(folder, card)

    def read(self, folder: Path, card: AdapterCard) -> ExpertWeights:
        """Return the weights of one transformer's adapter; raises InputError for values that are not finite."""
        return read_expert(folder, card)


ADAPTER = ControlAdapter()
