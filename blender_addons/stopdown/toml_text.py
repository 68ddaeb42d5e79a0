"""Writes a tree of plain values as TOML: the standard library only reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def toml_text(tree: dict[str, Any]) -> str:
    """Return TOML text that `tomllib` reads as the same tree: tables, lists of tables, and plain values or lists of them."""
    return "\n".join(_lines(tree, "")).strip() + "\n"


def _lines(tree: dict[str, Any], prefix: str) -> Iterator[str]:
    tables = {key: value for key, value in tree.items() if isinstance(value, dict)}
    lists = {key: value for key, value in tree.items() if _holds_tables(value)}
    for key, value in tree.items():
        if key not in tables and key not in lists:
            yield f"{_key(key)} = {_value(value)}"
    for key, table in tables.items():
        yield ""
        yield f"[{prefix}{_key(key)}]"
        yield from _lines(table, f"{prefix}{_key(key)}.")
    for key, entries in lists.items():
        for entry in entries:
            yield ""
            yield f"[[{prefix}{_key(key)}]]"
            yield from _lines(entry, f"{prefix}{_key(key)}.")


def _holds_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, dict) for entry in value)


def _key(key: str) -> str:
    plain = key and all(letter.isascii() and (letter.isalnum() or letter in "-_") for letter in key)
    return key if plain else json.dumps(key, ensure_ascii=False)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML escapes as JSON does, and DEL too
    if isinstance(value, list):
        return f"[{', '.join(_value(entry) for entry in value)}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{_key(key)} = {_value(entry)}' for key, entry in value.items())} }}"
    return repr(value) if isinstance(value, float) else str(value)
