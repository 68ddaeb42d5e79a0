"""The marker of an export, OUT/.stopdown-export.json: which export a folder holds, and each of its files with sha256 and size.

It is for people to read, and carries a checksum of itself, its `check` entry, so that a flipped bit in it is found. Markers of
format 1 have no such entry and are taken as they are; the next export into their folder writes them anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from generator.errors import DamagedError
from generator.io.atomic import write_atomic
from generator.io.checksummed_json import checksummed_text, parse_checksummed_text

MARKER = ".stopdown-export.json"
FORMAT_KEY = "stopdown_export_format"
EXPORT_FORMAT = 2
WITHOUT_CHECKSUM = 1  # the format before the marker had a checksum

Facts = Mapping[str, tuple[str, int]]  # sha256 and size by path


def read_marker(out: Path) -> dict[str, Any] | None:
    """Return the marker of a folder, or None where there is none; raises DamagedError for one that is not as it was written."""
    path = out / MARKER
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        tree = json.loads(data)
        if not isinstance(tree, dict):
            raise ValueError("it is no JSON object")
        if tree.get(FORMAT_KEY) == WITHOUT_CHECKSUM:
            return {**tree, FORMAT_KEY: EXPORT_FORMAT}
        return parse_checksummed_text(data)
    except ValueError as error:
        raise DamagedError(f"{path} is damaged ({error}); export into another folder") from None


def write_marker(out: Path, identity: Mapping[str, Any], facts: Facts, *, complete: bool) -> None:
    """Write the marker, unless it is there already."""
    files = {path: {"sha256": digest, "size_bytes": size} for path, (digest, size) in sorted(facts.items())}
    data = checksummed_text({**identity, "complete": complete, "files": files})
    if not (out / MARKER).is_file() or (out / MARKER).read_bytes() != data:
        write_atomic(out / MARKER, data)


def listed(marker: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the sha256 of every file that a marker lists, by path."""
    return {path: facts["sha256"] for path, facts in (marker or {}).get("files", {}).items()}
