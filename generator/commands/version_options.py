"""Options and output that the commands of the version history share."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from generator.versions.history.refs import Refs
from generator.versions.history.version import Version

Ref = Annotated[
    str,
    typer.Argument(
        metavar="REF",
        help="A version: at least four characters of its id, a tag, or latest; with ~N, the Nth version before it.",
    ),
]
Message = Annotated[str, typer.Option("--message", "-m", help="A message that describes the version.", show_default=False)]
Force = Annotated[bool, typer.Option("--force", help="Continue even if uncommitted work is lost or a tag is moved.")]
DatasetFolder = Annotated[Path, typer.Argument(metavar="DATASET", help="The dataset's folder.", show_default=False)]


def print_json(tree: Any) -> None:
    """Print a JSON tree for machines."""
    sys.stdout.write(json.dumps(tree, indent=1, ensure_ascii=False, default=str) + "\n")


def version_json(version: Version, tags: dict[str, list[str]] | None = None) -> dict[str, Any]:
    """Return a version as JSON, its id and tags with it."""
    return {"id": version.id, "tags": (tags or {}).get(version.id, []), **version.model_dump(mode="json")}


def tags_by_version(refs: Refs) -> dict[str, list[str]]:
    """Return the names of tags by version id."""
    found: dict[str, list[str]] = {}
    for name, tag in refs.tags().items():
        found.setdefault(tag.version, []).append(name)
    return found
