"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RecipeFile = Annotated[Path, typer.Argument(help="The recipe, a .toml file.", show_default=False)]
DatasetFolder = Annotated[Path, typer.Argument(help="The dataset's folder.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe; repeatable. Example: render.samples=32"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of text for people.")]
