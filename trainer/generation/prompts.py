"""Prompts from the command line and from files."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from scenes.errors import InputError

FORMS = '.txt (a prompt a line, # starts a comment), .jsonl ({"prompt": "…", "seed": 7} a line) or .toml ([[prompts]] tables)'


class Prompt(BaseModel):
    """A prompt, and what a file may say of it alone: its first seed and its negative prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    seed: Annotated[int, Field(ge=0, lt=2**62)] | None = None
    negative: str | None = None


def gather_prompts(words: Sequence[str], file: Path | None) -> tuple[Prompt, ...]:
    """Return the prompts given one by one, then those of a file; raises InputError for an empty one and as `read_prompts`."""
    if any(not word.strip() for word in words):
        raise InputError("a prompt is empty; write what the video shows")
    return (*(Prompt(prompt=word) for word in words), *(read_prompts(file) if file is not None else ()))


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """Return the prompts of a .txt, .jsonl or .toml file; raises InputError naming file and line for what is no prompt."""
    try:
        text = path.read_bytes().decode("utf-8-sig")  # Windows' editors begin a file with a byte order mark
    except FileNotFoundError:
        raise InputError(f"prompt file {path} does not exist; give a {FORMS}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"prompt file {path} cannot be read ({error}); give a UTF-8 text file") from None
    readers = {".txt": _lines, ".jsonl": _json_lines, ".toml": _tables}
    if path.suffix.lower() not in readers:
        raise InputError(f"prompt file {path} is of no known form; give a {FORMS}")
    found = readers[path.suffix.lower()](path, text)
    if not found:
        raise InputError(f"prompt file {path} has no prompt; give a {FORMS}")
    return found


def _lines(path: Path, text: str) -> tuple[Prompt, ...]:
    lines = [line.strip() for line in text.split("\n")]  # at nothing else: `splitlines` would also cut at U+2028 and \x0b
    return tuple(Prompt(prompt=line) for line in lines if line and not line.startswith("#"))


def _json_lines(path: Path, text: str) -> tuple[Prompt, ...]:
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise InputError(f"{path}, line {number} is no JSON ({error}); give a {FORMS}") from None
            found.append(_checked(f"{path}, line {number}", entry))
    return tuple(found)


def _tables(path: Path, text: str) -> tuple[Prompt, ...]:
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is no TOML ({error}); give a {FORMS}") from None
    entries = tree.get("prompts")
    if set(tree) != {"prompts"} or not isinstance(entries, list):
        raise InputError(f"{path} has {', '.join(tree) or 'nothing'}; allowed are [[prompts]] tables only")
    return tuple(_checked(f"{path}, prompt {number}", entry) for number, entry in enumerate(entries, 1))


def _checked(where: str, entry: Any) -> Prompt:
    try:
        return Prompt.model_validate(entry)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "entry"
        allowed = ", ".join(Prompt.model_fields)
        raise InputError(f"{where}: {key}: {first['msg']}; allowed keys are {allowed}") from None
