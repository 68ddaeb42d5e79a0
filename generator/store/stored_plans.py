"""Plans as a version keeps them: canonical JSON text in the store, the recipe within."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generator.errors import DamagedError
from generator.store.objects import Store
from scenes.errors import InputError

_CLIPS, _RECIPE = '{"clips":[', ',"recipe":{'  # a quote inside a caption is escaped, so neither can stand there


@dataclass(frozen=True, kw_only=True)
class PlanFile:
    """A plan's canonical text in a file, its sha256, and the recipe within."""

    path: Path
    digest: str
    recipe: Mapping[str, Any]


def plan_recipe(text: str) -> dict[str, Any]:
    """Return the recipe of a plan's JSON; raises InputError for what is no plan."""
    try:
        at = text.find(_RECIPE) if text.startswith(_CLIPS) else -1
        if at >= 0:  # canonical text, of which the recipe is a small part; its clips need not be read for that
            recipe, _ = json.JSONDecoder().raw_decode(text, at + len(_RECIPE) - 1)
        else:
            recipe = json.loads(text)["recipe"]
    except (ValueError, KeyError, TypeError):
        raise InputError("the plan to commit is no plan (JSON with a recipe); build the dataset again") from None
    return dict(recipe)


def read_plan(store: Store, digest: str) -> dict[str, Any]:
    """Return a stored plan as a JSON tree; raises DamagedError."""
    try:
        return dict(json.loads(store.read(digest)))
    except (ValueError, TypeError):
        raise DamagedError(f"plan {digest[:12]} is no JSON; restore it from a copy") from None


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a JSON tree by dotted path."""
    if isinstance(tree, dict):
        return {key: value for name, part in tree.items() for key, value in flat(part, f"{prefix}.{name}").items()}
    if isinstance(tree, list | tuple):
        return {key: value for n, part in enumerate(tree) for key, value in flat(part, f"{prefix}.{n}").items()}
    return {prefix.removeprefix("."): tree}
