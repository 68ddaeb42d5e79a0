"""Reads, overrides and checks recipes; every complaint is one line that names file, key, value, what is allowed."""

from __future__ import annotations

import json
import tomllib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from generator.recipe.blend_file import with_annotation
from generator.recipe.schema import Recipe
from scenes.errors import InputError, closest

Model = TypeVar("Model", bound=BaseModel)
MISTAKES_TOLD = 5

LARGEST_BYTES = 1 << 20  # a recipe with a thousand prompts is a tenth of this
LONGEST_SHOWN = 60


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and apply `key=value` overrides; raises InputError with one line."""
    tree = parse_tree(read_text(path), source=str(path), overrides=overrides)
    return validate(Recipe, with_annotation(tree, path.parent), str(path))


def read_text(path: Path) -> str:
    """Return the text of a recipe file; raises InputError with one line."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_BYTES + 1)
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; give the recipe's .toml file") from None
    except FileNotFoundError:
        near = closest(path.name, [other.name for other in path.parent.glob("*.toml")] if path.parent.is_dir() else [])
        raise InputError(f"no recipe at {path}{near}") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > LARGEST_BYTES:
        raise InputError(f"{path} is larger than {LARGEST_BYTES:,} bytes; a recipe is a short TOML file")
    try:
        return data.decode("utf-8-sig")  # Windows' editors begin a file with a byte order mark
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}); a recipe is a TOML file") from None


def parse_recipe(text: str, *, source: str, overrides: Sequence[str] = ()) -> Recipe:
    """Parse a recipe from TOML text; `source` names it in errors."""
    return validate(Recipe, parse_tree(text, source=source, overrides=overrides), source)


def parse_tree(text: str, *, source: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Parse TOML text and apply overrides; raises InputError for what is not TOML, or no override."""
    tree = _toml(text, source)
    for override in overrides:
        _override(tree, override)
    return tree


def validate(model: type[Model], tree: dict[str, Any], source: str) -> Model:
    """Return a tree as a model; raises InputError that names file, key, value and what is allowed."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise InputError(_explain(source, error, model)) from None
    except RecursionError:
        raise InputError(f"{source}: its values are nested too deeply to be read") from None


def recipe_schema() -> dict[str, Any]:
    """Return the JSON Schema of a recipe, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}


def _override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set '{_short(override)}' is not key=value; for example --set render.samples=32")
    value = _override_value(text, override)
    *parents, last = key.strip().split(".")
    node: Any = tree
    for depth, part in enumerate(parents):
        where = ".".join(parents[: depth + 1])
        node = _child(node, part, where, override)
    if isinstance(node, list):
        node[_position(node, last, key, override)] = value
    else:
        node[last] = value


def _override_value(text: str, override: str) -> Any:
    try:
        tree = _toml(f"value = {text}", f"--set '{_short(override)}'")
    except InputError as error:
        if isinstance(error.__context__, tomllib.TOMLDecodeError):
            return text  # a bare word is a string: --set render.fidelity=lit
        raise
    if list(tree) != ["value"]:
        raise InputError(f"--set '{_short(override)}' sets more than its own key; give one value, and --set again for another")
    return tree["value"]


def _toml(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{source} is not valid TOML: {error}") from None
    except RecursionError:
        raise InputError(f"{source}: its values are nested too deeply to be read") from None
    except ValueError as error:  # an integer of thousands of digits, a date that is none
        raise InputError(f"{source} holds a value that cannot be read ({str(error).partition(';')[0]})") from None


def _short(words: str) -> str:
    """Return words for a message: on one line, and cut off where they are long."""
    line = _printable(" ".join(words.split()))
    return line if len(line) <= LONGEST_SHOWN else line[: LONGEST_SHOWN - 3] + "..."


def _printable(words: str) -> str:
    """Return words with what cannot be printed, line ends among it, as Python writes it: keys may be any text."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in words)


def _child(node: Any, part: str, where: str, override: str) -> Any:
    if isinstance(node, list):
        child = node[_position(node, part, where, override)]
    else:
        child = node.setdefault(part, {})
    if not isinstance(child, dict | list):
        raise InputError(f"--set '{_short(override)}': {_short(where)} is a value, not a section; name one of its own keys")
    return child


def _position(node: list[Any], part: str, where: str, override: str) -> int:
    if not (part.isascii() and part.isdecimal() and len(part) <= 9 and int(part) < len(node)):
        raise InputError(
            f"--set '{_short(override)}': {_short(where)} is a list of {len(node)}; number its entries 0 to {len(node) - 1}, "
            "as in --set pyramid.0.scenes_per_layer=1"
        )
    return int(part)


def _explain(source: str, error: ValidationError, root: type[BaseModel]) -> str:
    """Return what is wrong, in one line: every mistake up to `MISTAKES_TOLD`, and how many more there are."""
    details = error.errors(include_url=False)
    told = [_mistake(detail, root) for detail in details[:MISTAKES_TOLD]]
    more = f"; and {len(details) - MISTAKES_TOLD} more" if len(details) > MISTAKES_TOLD else ""
    return f"{source}: {_printable('; '.join(told))}{more}"


def _mistake(detail: ErrorDetails, root: type[BaseModel]) -> str:
    location = [part for part in detail["loc"] if part != "[key]"]
    key = _key(location)
    if detail["type"] == "extra_forbidden":
        known = _known_keys(root, location[:-1])
        section = f"[{_key(location[:-1])}]" if len(location) > 1 else "the recipe"
        return f"unknown key '{location[-1]}' in {section}{closest(str(location[-1]), known)}; allowed: {', '.join(known)}"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "missing":
        return f"key '{key}' is missing; {_describe(root, location)}"
    if not location:
        return message
    return f"key '{key}' = {_shown(detail['input'])}: {message[:1].lower() + message[1:]}"


def _shown(value: Any) -> str:
    try:
        return _short(json.dumps(value, default=str))
    except (ValueError, RecursionError):  # an integer of thousands of digits, nested a thousand times
        return f"a {type(value).__name__} that is too large to show"


def _key(location: Sequence[int | str]) -> str:
    words = ""
    for part in location:
        words += f"[{part}]" if isinstance(part, int) else f".{part}"
    return words.removeprefix(".")


def _model_at(root: type[BaseModel], location: Sequence[int | str]) -> type[BaseModel] | None:
    """Return the section model at a location, following lists and dicts to the models inside them."""
    current: Any = root
    for part in location:
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(part))
            if field is None:
                return None
            current = field.annotation
        else:
            current = _inner(current)
    while typing.get_origin(current) in (types.UnionType, typing.Union):
        current = _inner(current)
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None


def _inner(annotation: Any) -> Any:
    arguments = [a for a in typing.get_args(annotation) if a is not Ellipsis and a is not type(None)]
    return arguments[-1] if arguments else annotation


def _known_keys(root: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    model = _model_at(root, location)
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def _describe(root: type[BaseModel], location: Sequence[int | str]) -> str:
    model = _model_at(root, location[:-1])
    field = model.model_fields.get(str(location[-1])) if model else None
    return f"it is the {field.description}" if field and field.description else "add it"
