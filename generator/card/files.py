"""The files about itself that a dataset folder carries: README.md, croissant.json, provenance.json."""

from __future__ import annotations

from collections.abc import Iterator

from generator.card.card import dataset_card
from generator.card.croissant import LabelFile, croissant
from generator.card.facts import gather
from generator.card.origin import Origin
from generator.card.provenance import provenance
from generator.io.atomic import file_digest
from generator.store.labels import StoredLabels

LINEAGE_NAMES = ("README.md", "croissant.json", "provenance.json")


def lineage_files(origin: Origin, labels: StoredLabels, *, license: str | None = None) -> dict[str, Iterator[bytes]]:
    """Return the files by name, each in pieces, for a folder with `clips/` and these labels, in order of id."""
    facts = gather(origin.axes, labels, origin.splits)
    file = LabelFile(path="labels.parquet", sha256=file_digest(labels.file), size_bytes=labels.file.stat().st_size)
    return {
        "README.md": iter([dataset_card(origin, facts, license=license).encode()]),
        "croissant.json": croissant(origin, facts, labels, license=license, labels=[file]),
        "provenance.json": provenance(origin, labels),
    }
