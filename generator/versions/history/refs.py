"""References: the head of the history and tags, each a small checksummed file, swapped only if it still says what was read."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from generator.errors import ConflictError, DamagedError
from generator.io.atomic import fsync_folder
from generator.io.checksummed_json import read_checksummed, write_checksummed
from generator.versions.history.locks import swapping
from scenes.errors import InputError
from scenes.spec import Spec

_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HEXADECIMAL = re.compile(r"[0-9a-f]{4,}")
RESERVED = ("latest", "head")


class Tag(Spec):
    """What a reference file says."""

    name: str
    version: str
    time: str


class Refs:
    """The head and the tags under DATASET/.stopdown."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def head(self) -> str | None:
        """Return the id of the latest version, or None before the first."""
        tag = self._read(self.root / "head.json", "head")
        return None if tag is None else tag.version

    def swap_head(self, expected: str | None, version_id: str) -> None:
        """Move the head; raises ConflictError when it no longer is `expected`."""
        self._swap(self.root / "head.json", "head", expected, version_id)

    def tags(self) -> dict[str, Tag]:
        """Return all tags by name, in order of name; raises DamagedError."""
        names = self.tag_names()
        tags = {name: self._read(self._tag_path(name), name) for name in names}
        return {name: tag for name, tag in tags.items() if tag is not None}

    def tag_names(self) -> list[str]:
        """Return the names of all tags, without reading them."""
        folder = self.root / "tags"
        if not folder.is_dir():
            return []
        return sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))

    def tag(self, name: str) -> Tag | None:
        """Return one tag, or None; raises DamagedError."""
        return self._read(self._tag_path(name), name) if _TAG.fullmatch(name) else None

    def swap_tag(self, name: str, expected: str | None, version_id: str | None) -> None:
        """Set, move or (with None) remove a tag; raises ConflictError when it no longer is `expected`."""
        check_tag_name(name)
        self._swap(self._tag_path(name), name, expected, version_id)

    def _swap(self, path: Path, name: str, expected: str | None, version_id: str | None) -> None:
        with swapping(self.root):
            tag = self._read(path, name)
            found = None if tag is None else tag.version
            if found != expected:
                state = "is gone" if found is None else f"is at {found[:12]} now"
                raise ConflictError(f"another process moved '{name}': it {state}; look at the log and try again")
            if version_id is None:
                path.unlink(missing_ok=True)
                fsync_folder(path.parent)
                return
            now = datetime.now(UTC).isoformat(timespec="seconds")
            write_checksummed(path, Tag(name=name, version=version_id, time=now).model_dump(mode="json"))

    def _tag_path(self, name: str) -> Path:
        return self.root / "tags" / f"{name}.json"

    def _read(self, path: Path, name: str) -> Tag | None:
        tree = read_checksummed(path)
        if tree is None:
            return None
        try:
            tag = Tag.model_validate(tree)
        except ValidationError:
            raise DamagedError(f"{path} is no reference; restore it from a copy") from None
        if tag.name != name:
            raise DamagedError(f"{path} is the file of '{tag.name}', not of '{name}'; it was moved or swapped")
        return tag


def check_tag_name(name: str) -> None:
    """Raise InputError for what cannot name a tag."""
    if not _TAG.fullmatch(name):
        raise InputError(f"'{name}' cannot name a tag; use 1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or digit")
    if name in RESERVED or _HEXADECIMAL.fullmatch(name):
        raise InputError(f"'{name}' cannot name a tag, because it reads as a version; add a word to it, as in 'v-{name}'")


def version_ids(root: Path) -> list[str]:
    """Return the ids of all version files, in order of id."""
    try:
        names = [path.name for path in (root / "versions").iterdir()]
    except FileNotFoundError:
        return []
    return sorted(name[:-5] for name in names if re.fullmatch(r"[0-9a-f]{64}\.json", name))
