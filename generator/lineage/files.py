"""The files about itself that a dataset folder carries: README.md, croissant.json, provenance.json."""

from __future__ import annotations

import hashlib

import pyarrow as pa

from generator.lineage.card import dataset_card
from generator.lineage.croissant import LabelFile, croissant
from generator.lineage.origin import Origin
from generator.lineage.provenance import provenance

LINEAGE_NAMES = ("README.md", "croissant.json", "provenance.json")


def lineage_files(origin: Origin, table: pa.Table, labels_parquet: bytes, *, license: str | None = None) -> dict[str, bytes]:
    """Return the files by name for a folder with `clips/` and this `labels.parquet`."""
    labels = LabelFile(path="labels.parquet", sha256=hashlib.sha256(labels_parquet).hexdigest(), size_bytes=len(labels_parquet))
    return {
        "README.md": dataset_card(origin, table, license=license).encode(),
        "croissant.json": croissant(origin, table, license=license, labels=[labels]),
        "provenance.json": provenance(origin, table),
    }
