"""`stopdown schema`."""

from __future__ import annotations

import json

from generator.recipe.load import recipe_schema


def command() -> None:
    """Print the JSON Schema of recipes, for editors."""
    print(json.dumps(recipe_schema(), indent=2))
