"""The JSON files of a run: for people to read, and proven by a `check` entry, the sha256 of the rest, so that no flipped bit is
believed. Files of before have no such entry and are taken as they are."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from generator.sealed import canonical, sha256


def checked(model: BaseModel) -> bytes:
    """Return a model as indented JSON with its `check` entry."""
    return _text(json.loads(model.model_dump_json()))


def proven(data: bytes) -> dict[str, Any]:
    """Return what `checked` was given, without the entry; raises ValueError where a single bit differs."""
    tree = json.loads(data)
    if not isinstance(tree, dict):
        raise ValueError("it is no JSON object")
    if tree.pop("check", None) is not None and _text(tree) != data:
        raise ValueError("it does not match its checksum")
    return tree


def _text(tree: dict[str, Any]) -> bytes:
    return (json.dumps({**tree, "check": sha256(canonical(tree))}, indent=1, ensure_ascii=False) + "\n").encode()
