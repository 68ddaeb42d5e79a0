"""Reads the `[train]` section of a recipe file: one that also describes a dataset, or one with nothing else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from generator.recipe.load import parse_tree, read_text, validate
from generator.recipe.schema import Recipe
from generator.recipe.section import Section
from scenes.errors import InputError
from trainer.config.train import TrainSettings

# By section, the names before; read for one version.
FORMER_KEYS = {
    "train": {"what": "method", "contradiction": "counterfactual_noise"},
    "evaluate": {"fast": "fep"},
}


class TrainRecipe(Section):
    """A file with nothing but a `[train]` section."""

    train: TrainSettings


def with_present_names(tree: dict[str, Any], source: str) -> dict[str, Any]:
    """Return a recipe's tree with what was called otherwise in the last version under its present name, and say so on stderr.

    Raises InputError where both names are given.
    """
    for name, former, present in ((name, *pair) for name, pairs in FORMER_KEYS.items() for pair in pairs.items()):
        section = tree.get(name)
        if not isinstance(section, dict) or former not in section:
            continue
        if present in section:
            raise InputError(f"{source}: {name}.{former} is the former name of {name}.{present}, and both are given; remove it")
        tree = {**tree, name: {present if key == former else key: value for key, value in section.items()}}
        sys.stderr.write(
            f"stopdown: note: {source}: {name}.{former} is {name}.{present} now; the next version will not read the former "
            "name\n"
        )
    return tree


def load_settings(path: Path, overrides: Sequence[str] = ()) -> TrainSettings:
    """Read the `[train]` section of a recipe file and apply `key=value` overrides (`train.steps=100`).

    Raises InputError with one line for a file without that section, an unknown key anywhere in the file and an impossible
    value.
    """
    return parse_settings(read_text(path), source=str(path), overrides=overrides)


def parse_settings(text: str, *, source: str, overrides: Sequence[str] = ()) -> TrainSettings:
    """Parse the `[train]` section from TOML text; `source` names it in errors.

    A file that also describes a dataset trains on that one, in datasets/NAME, unless it names another.
    Raises InputError for a recipe without a [train] section, and for settings that cannot be.
    """
    tree = with_present_names(parse_tree(text, source=source, overrides=overrides), source)
    if "train" not in tree:
        raise InputError(f'{source} has no [train] section; add one with at least dataset = "FOLDER"')
    if set(tree) & (set(Recipe.model_fields) - {"train"}):
        dataset = validate(Recipe, tree, source)
        own = {"dataset": str(Path("datasets") / dataset.name)}  # where `stopdown build` puts it unless told otherwise
        tree = {"train": {**own, **tree["train"]} if isinstance(tree["train"], dict) else tree["train"]}
    return validate(TrainRecipe, tree, source).train
