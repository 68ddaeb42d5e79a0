"""The JSON files of a run, for people to read. Their `check` entry is the sha256 of the rest, so that a flipped bit is found.

Files of earlier versions have no such entry and are read as they are.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from generator.io.checksummed_json import checksummed_text, parse_checksummed_text


def checked(model: BaseModel) -> bytes:
    """Return a model as indented JSON with its `check` entry."""
    return checksummed_text(json.loads(model.model_dump_json()))


def verified(data: bytes) -> dict[str, Any]:
    """Return what `checked` was given, without the entry; raises ValueError where a single bit differs."""
    return parse_checksummed_text(data, optional=True)
