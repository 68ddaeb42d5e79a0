"""The record of one version: what it holds, what made it, where it came from. Its id is the sha256 of the whole record."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from pydantic import Field, ValidationError

from generator.errors import DamagedError
from generator.io.checksummed_json import canonical, sha256
from generator.store.objects import ClipRecord
from generator.store.splits import SplitRatios
from generator.versions.manifest.summary import Summary
from generator.versions.manifest.tree import Manifest
from scenes.errors import InputError
from scenes.spec import Spec

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
VERSION_FORMAT = 1


class Software(Spec):
    """The programs whose versions the content depends on; a merged dataset may have several of each."""

    stopdown: str
    python: str
    blender: tuple[str, ...] = ()
    encoder: tuple[str, ...] = ()

    @classmethod
    def here(cls, records: Iterable[ClipRecord] = ()) -> Software:
        """Return this installation's versions, with the Blender and encoder versions that records name."""
        pairs = {(record.blender, record.encoder) for record in records}
        return cls(
            stopdown=_stopdown_version(),
            python=platform.python_version(),
            blender=tuple(sorted({blender for blender, _ in pairs})),
            encoder=tuple(sorted({encoder for _, encoder in pairs})),
        )

    def joined(self, other: Software) -> Software:
        """Return this with the Blender and encoder versions of another."""
        return self.model_copy(
            update={
                "blender": tuple(sorted({*self.blender, *other.blender})),
                "encoder": tuple(sorted({*self.encoder, *other.encoder})),
            }
        )


class Version(Spec):
    """One version. `manifest`, `plans` and `files` name objects; `recipes` are whole; `parents` are version ids, first first.

    `content` names what the version holds: the same recipe, seed and software give the same content id on any machine, at any
    time, with any message and parent. `files` are the generated files beside the clips (README.md) by name.
    """

    format: int = VERSION_FORMAT
    parents: tuple[str, ...]
    content: str
    manifest: str
    plans: tuple[str, ...]
    recipes: tuple[dict[str, Any], ...]
    software: Software
    splits: SplitRatios
    summary: Summary
    files: dict[str, str] = Field(default_factory=dict)
    machine: str
    time: str
    message: str

    @cached_property
    def data(self) -> bytes:
        """The bytes of the version's file."""
        return canonical(self.model_dump(mode="json")) + b"\n"

    @cached_property
    def id(self) -> str:
        """The sha256 of the version's file."""
        return sha256(self.data)

    @property
    def short(self) -> str:
        """The first characters of the id, as people meet it."""
        return self.id[:12]

    @property
    def name(self) -> str:
        """The names of the recipes, joined."""
        return " + ".join(str(recipe.get("name", "?")) for recipe in self.recipes) or "dataset"


def _check_files(version: Version) -> Version:
    """Return a version; raises DamagedError when a file it names could lie outside the dataset."""
    for name in version.files:
        if not _PLAIN_NAME.fullmatch(name) or name == "labels.parquet":
            raise DamagedError(f"version {version.short} names a file {name!r}, which no version may write; nothing was done")
    return version


def read_version(data: bytes, version_id: str) -> Version:
    """Read a version's file; raises DamagedError, or InputError when a newer Stopdown wrote it."""
    if sha256(data) != version_id:
        raise DamagedError(f"version {version_id[:12]} is damaged: its file does not match its id; restore it from a copy")
    try:
        tree = json.loads(data)
        if tree["format"] > VERSION_FORMAT:
            raise InputError(
                f"version {version_id[:12]} has format {tree['format']}, this Stopdown reads {VERSION_FORMAT}; upgrade Stopdown"
            )
        return _check_files(Version.model_validate(tree))
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"version {version_id[:12]} is no version record ({type(error).__name__})") from None


def content_id(manifest: Manifest, plans: Sequence[str], software: Software, splits: SplitRatios) -> str:
    """Return the sha256 of the deterministic part: rows without readings, plans (recipe and seed within), software, splits."""
    tree = {
        "format": VERSION_FORMAT,
        "rows": manifest.content,
        "plans": sorted(plans),
        "software": software.model_dump(mode="json"),
        "splits": splits.model_dump(mode="json"),
    }
    return sha256(canonical(tree))


def machine_kind() -> str:
    """Return this machine's kind, without anything that names it: system, processor, cores."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def _stopdown_version() -> str:
    try:
        return importlib.metadata.version("stopdown")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
