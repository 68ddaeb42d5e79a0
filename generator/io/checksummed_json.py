"""Small JSON files with a checksum: a `check` entry holds the sha256 of the rest, so a flipped bit anywhere is found."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from generator.errors import DamagedError
from generator.io.atomic import write_atomic

_LINE_CHECK = 16  # hex digits: enough against chance, and short beside what a line says


def canonical(tree: Any) -> bytes:
    """Return JSON with sorted keys and no spaces, UTF-8; equal trees have equal bytes."""
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256(data: bytes) -> str:
    """Return the sha256 of bytes, as hex."""
    return hashlib.sha256(data).hexdigest()


def checksummed(tree: dict[str, Any]) -> bytes:
    """Return a JSON object with its `check` entry and a final newline."""
    return canonical({**tree, "check": sha256(canonical(tree))}) + b"\n"


def parse_checksummed(data: bytes, name: str) -> dict[str, Any]:
    """Return what `checksummed` was given; raises DamagedError naming the file when a single bit differs."""
    try:
        tree = json.loads(data)
        check = tree.pop("check")
        whole = check == sha256(canonical(tree)) and checksummed(tree) == data
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):  # NaN and half characters among them
        raise DamagedError(
            f"{name} is damaged: it is not JSON with a checksum; `stopdown verify` says what it touches"
        ) from None
    if not whole:
        raise DamagedError(f"{name} is damaged: it does not match its checksum; `stopdown verify` says what it touches")
    return dict(tree)


def checksummed_text(tree: dict[str, Any]) -> bytes:
    """Return a JSON object for people to read, indented, with its `check` entry."""
    return (json.dumps({**tree, "check": sha256(canonical(tree))}, indent=1, ensure_ascii=False) + "\n").encode()


def parse_checksummed_text(data: bytes, *, optional: bool = False) -> dict[str, Any]:
    """Return what `checksummed_text` was given; raises ValueError where a single bit differs.

    With `optional`, a file from before there were checks, which has none, is taken as it is.
    """
    tree = json.loads(data)
    if not isinstance(tree, dict):
        raise ValueError("it is no JSON object")
    check = tree.pop("check", None)
    if not (optional and check is None) and checksummed_text(tree) != data:
        raise ValueError("it does not match its checksum")
    return tree


def checksummed_line(tree: dict[str, Any]) -> bytes:
    """Return a JSON object as a line of a log, without its end, with a `check` entry that begins the sha256 of the rest."""
    return json.dumps({**tree, "check": sha256(canonical(tree))[:_LINE_CHECK]}, ensure_ascii=False, allow_nan=False).encode()


def parse_checksummed_line(line: bytes, *, optional: bool = False) -> dict[str, Any]:
    """Return what `checksummed_line` was given; raises ValueError where a single bit differs.

    With `optional`, a line from before there were checks, which has none, is taken as it is.
    """
    tree = json.loads(line)
    if not isinstance(tree, dict):
        raise ValueError("it is no JSON object")
    check = tree.pop("check", None)
    if not (optional and check is None) and checksummed_line(tree) != line:
        raise ValueError("it does not match its checksum")
    return tree


def write_checksummed(path: Path, tree: dict[str, Any]) -> None:
    """Write a checksummed file: durable, and either old or new to a reader."""
    write_atomic(path, checksummed(tree))


def read_checksummed(path: Path) -> dict[str, Any] | None:
    """Return a checksummed file's entries, or None where there is no such file; raises DamagedError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DamagedError(f"{path} cannot be read ({error.strerror}); check its permissions") from None
    return parse_checksummed(data, str(path))
