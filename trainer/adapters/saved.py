"""`SavedAdapter`: an adapter's folder, opened once. What uses an adapter takes this object, never a path.

Opening holds the folder against its card before anything is allocated: names, shapes and number formats from the headers of the
weight files, then the sha256 of every file. Weights are read when they are asked for, and must be finite.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from generator.io.atomic import file_digest
from scenes.errors import InputError
from trainer.adapters.adapter_parts import AdapterParts
from trainer.adapters.adapter_weights import RESTORE, ExpertWeights, expert_folder
from trainer.adapters.card import CARD, AdapterCard, parse_card, read_card_file
from trainer.adapters.place import adapter_place
from trainer.methods import METHODS, Method


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedAdapter:
    """A verified adapter: its folder, its card, and the sha256 of its card and weight files by their names in the folder."""

    folder: Path
    card: AdapterCard
    digests: Mapping[str, str]

    @classmethod
    def open(cls, named: str | Path) -> SavedAdapter:
        """Open the adapter that a person named: a folder of its own, a checkpoint's, a run's, or `owner/name@revision`.

        Raises InputError naming the file that is not what the card says. A card of format 1 has no hashes to check.
        """
        folder = adapter_place(Path(named))
        data = read_card_file(folder)
        card = parse_card(data, folder / CARD)
        parts: AdapterParts = METHODS[card.method].load("adapter")
        for expert in card.backbone.fingerprints:
            parts.check_headers(expert_folder(folder, expert), card)
        if card.weights is not None and tuple(sorted(card.weights)) != parts.files(card):
            listed = ", ".join(sorted(card.weights)) or "none"
            raise InputError(f"{folder}: its card lists {listed}, an adapter like it has {', '.join(parts.files(card))}")
        files = [path for path in sorted(folder.rglob("*.safetensors")) if path.is_file()]
        digests = {path.relative_to(folder).as_posix(): _hashed(path) for path in files}
        for name, expected in (card.weights or {}).items():
            if digests.get(name) != expected:
                raise InputError(f"{folder / name} does not match its sha256: it was changed or is damaged; {RESTORE}")
        return cls(folder=folder, card=card, digests={**digests, CARD: hashlib.sha256(data).hexdigest()})

    @property
    def method(self) -> Method:
        """The method that trained it."""
        return METHODS[self.card.method]

    @property
    def name(self) -> str:
        """The name that titles give it."""
        return self.folder.resolve().name

    @property
    def digest(self) -> str:
        """The sha256 that tells it from any other: of the names and bytes of its card and weight files, sorted by path."""
        digest = hashlib.sha256()
        for path in sorted(self.folder / name for name in self.digests):
            name = path.relative_to(self.folder).as_posix()
            digest.update(name.encode() + b"\0" + bytes.fromhex(self.digests[name]))
        return digest.hexdigest()

    def weights(self, expert: str | None = None) -> dict[str, ExpertWeights]:
        """Return the weights by transformer, of all or one of them; raises InputError for values that are not finite."""
        names = list(self.card.backbone.fingerprints) if expert is None else [expert]
        parts: AdapterParts = self.method.load("adapter")
        return {name: parts.read(expert_folder(self.folder, name), self.card) for name in names}


def _hashed(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); {RESTORE}") from error
