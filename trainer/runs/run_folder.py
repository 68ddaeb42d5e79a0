"""Where runs live: `runs/NAME/ID/`, with all that is needed to repeat one.

RUNS/NAME/ID/recipe.toml     the recipe as it was given      run.json      name, overrides, dataset, machine
             state.json      what each stage did             verify.json   verify.png
             train/          checkpoints, metrics, adapter   evaluation/   videos, readings, report.json
             report.html
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from generator.io.atomic import write_atomic
from generator.io.checked_model import checked, verified
from generator.io.checksummed_json import sha256
from scenes.errors import InputError, closest
from trainer.runs.run_recipe import RunRecipe

FACTS, RECIPE = "run.json", "recipe.toml"


class RunFacts(BaseModel):
    """What a run is, beside its recipe, of which it knows the sha256 (empty in runs of before)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    run: str
    dataset: str
    overrides: tuple[str, ...]
    machine: str
    recipe_sha256: str = ""


def run_folders(root: Path, name: str | None = None) -> list[Path]:
    """Return the folders of all runs under `root`, or those of one recipe, oldest first."""
    parents = [root / name] if name is not None else sorted(path for path in _folders(root))
    return [folder for parent in parents for folder in sorted(_folders(parent)) if (folder / FACTS).is_file()]


def _folders(path: Path) -> Iterator[Path]:
    return (entry for entry in path.iterdir() if entry.is_dir()) if path.is_dir() else iter(())


def choose_folder(root: Path, name: str, *, run: str | None, new: bool) -> Path:
    """Return the folder of a run: the one named, the last one, or a new one; nothing is made yet.

    Raises InputError for a name that is none, and for both a name and a new run.
    """
    if run is not None and new:
        raise InputError("--run names a run and --new asks for another; give one of them")
    if run is not None:
        if not run or "/" in run or run.startswith("."):
            raise InputError(f"run '{run}' is no name of a folder; give letters and digits such as 002")
        return root / name / run
    before = run_folders(root, name)
    if before and not new:
        return before[-1]
    numbers = [int(folder.name) for folder in before if folder.name.isdecimal()]
    return root / name / f"{max(numbers, default=0) + 1:03d}"


def claim(folder: Path, recipe: RunRecipe, dataset: Path) -> RunFacts:
    """Make a run's folder, or reuse the one that is there; raises InputError where it belongs to another recipe."""
    name = recipe.dataset.name
    if (folder / FACTS).exists():
        before = read_facts(folder)
        if before.name != name:
            raise InputError(
                f"{folder} is a run of recipe '{before.name}', not of '{name}'; choose another with --run or --new"
            )
        if Path(before.dataset) != dataset:
            raise InputError(
                f"{folder} trains on {before.dataset}, not on {dataset}; give --dataset {before.dataset}, or --new"
            )
    elif folder.exists() and any(entry.name != RECIPE and not entry.name.startswith(".tmp-") for entry in folder.iterdir()):
        raise InputError(f"{folder} is there and is no run; choose another with --run")
    facts = RunFacts(
        name=name,
        run=folder.name,
        dataset=str(dataset),
        overrides=recipe.overrides,
        machine=platform.platform(),
        recipe_sha256=sha256(recipe.text.encode()),
    )
    write_atomic(folder / RECIPE, recipe.text.encode())
    write_atomic(folder / FACTS, checked(facts))
    return facts


def read_facts(folder: Path) -> RunFacts:
    """Return what a run is; raises InputError for a folder that is none."""
    try:
        return RunFacts.model_validate(verified((folder / FACTS).read_bytes()))
    except FileNotFoundError:
        siblings = [path.name for path in _folders(folder.parent)] if folder.parent.is_dir() else []
        raise InputError(f"{folder} is no run{closest(folder.name, siblings)}; `stopdown runs` lists them") from None
    except (OSError, ValueError) as error:  # pydantic's errors are among them
        raise InputError(f"{folder / FACTS} cannot be read ({type(error).__name__}); start again with --new") from error


def read_recipe(folder: Path, facts: RunFacts) -> str:
    """Return the text of a run's recipe; raises InputError where it is not the one that the run was made with."""
    try:
        data = (folder / RECIPE).read_bytes()
        text = data.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / RECIPE} cannot be read ({type(error).__name__}); start again with --new") from error
    if facts.recipe_sha256 not in ("", sha256(data)):
        raise InputError(f"{folder / RECIPE} is not the recipe of this run; run it again with its recipe to write it anew")
    return text
