"""What a method says of its saved adapters: `Method.adapter` of `trainer.methods` names one."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from trainer.adapters.adapter_weights import ExpertWeights
from trainer.adapters.card import AdapterCard


class AdapterParts(Protocol):
    """What is in the folder of a method's adapter beside the card; the folder itself is the same for all methods."""

    card: type[AdapterCard]  # with the method's own configuration

    def files(self, card: AdapterCard) -> tuple[str, ...]:
        """Return the names of all weight files of an adapter, relative to its folder, sorted."""
        ...

    def check_headers(self, folder: Path, card: AdapterCard) -> None:
        """Raise InputError for weight files of one transformer that are not as the card has them; no tensor is read."""
        ...

    def read(self, folder: Path, card: AdapterCard) -> ExpertWeights:
        """Return the weights of one transformer's adapter; raises InputError for values that are not finite."""
        ...
