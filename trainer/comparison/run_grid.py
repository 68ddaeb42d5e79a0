"""A comparison: the same recipe run at several fidelities, seeds and ways of training, each combination a run of its own.

RUNS/NAME/flat-0/ … pbr-2-adapter_only/   ordinary runs, which `stopdown runs NAME` lists
RUNS/NAME/comparison.json, report.html    what they say together
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from generator.recipe.load import parse_tree, read_text, validate
from generator.recipe.section import Section
from scenes.errors import InputError, closest
from scenes.shading import Fidelity
from trainer.runs.run_recipe import RunRecipe, load_run_recipe

NOISE_STRIDE = 1000  # between the noise of two seeds
MINE = {  # what a comparison sets in each run
    "render.fidelity": "compare.fidelity",
    "train.seed": "compare.seeds",
    "evaluate.seed": "compare.seeds",
    "train.adapter.arm": "compare.trained",
}
Seed = Annotated[int, Field(ge=0, lt=1000)]
Trained = Literal["joint", "adapter_only"]


class CompareSettings(Section):
    """A whole `[compare]` section; every combination is a run."""

    fidelity: tuple[Fidelity, ...] = Field(min_length=1, description="how the data are rendered, a dataset for each")
    seeds: tuple[Seed, ...] = Field(min_length=1, description="seeds of training and of the noise; the data stay the same")
    trained: tuple[Trained, ...] = Field(
        default=("joint",), min_length=1, description="joint, and adapter_only for a control that was trained without LoRA"
    )

    @field_validator("fidelity", "seeds", "trained")
    @classmethod
    def _once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        for value in values:
            if values.count(value) > 1:
                raise ValueError(f"'{value}' stands twice; name each once")
        return values

    @field_validator("trained")
    @classmethod
    def _joint_is_there(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if "joint" not in values:
            raise ValueError("'joint' is missing, whose modes are what is compared")
        return values


class CompareRecipe(Section):
    """A tree with nothing but a `[compare]` section."""

    compare: CompareSettings


@dataclass(frozen=True, kw_only=True)
class GridRun:
    """One run of a comparison."""

    fidelity: str
    seed: int
    trained: str
    recipe: RunRecipe

    @property
    def name(self) -> str:
        """The run's name, which is its folder's."""
        return f"{self.fidelity}-{self.seed}" + ("" if self.trained == "joint" else f"-{self.trained}")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A recipe with a `[compare]` section and its cells, the first seed of every fidelity before the second."""

    settings: CompareSettings
    name: str
    text: str
    overrides: tuple[str, ...]
    cells: tuple[GridRun, ...]

    def folder(self, runs: Path) -> Path:
        """Return where the cells lie and the report is written."""
        return runs / self.name

    def dataset(self, fidelity: str, datasets: Path) -> Path:
        """Return the dataset that all cells of a fidelity share."""
        return datasets / f"{self.name}-{fidelity}"

    def chosen(self, names: Sequence[str] | None) -> tuple[GridRun, ...]:
        """Return the cells of some names, or all; raises InputError for a name that is none."""
        if not names:
            return self.cells
        by_name = {cell.name: cell for cell in self.cells}
        for name in names:
            if name not in by_name:
                raise InputError(f"no cell '{name}'{closest(name, list(by_name))}; the cells are {', '.join(by_name)}")
        return tuple(by_name[name] for name in dict.fromkeys(names))


def is_comparison(path: Path, overrides: Sequence[str] = ()) -> bool:
    """Return whether a recipe file has a `[compare]` section."""
    return "compare" in parse_tree(read_text(path), source=str(path), overrides=overrides)


def load_comparison(path: Path, overrides: Sequence[str] = ()) -> Comparison:
    """Read a recipe with a `[compare]` section.

    Raises InputError in one line for a wrong section, and for a key that the comparison itself sets in each run.
    """
    text = read_text(path)
    tree = parse_tree(text, source=str(path), overrides=overrides)
    settings = validate(CompareRecipe, {"compare": tree.get("compare", {})}, str(path)).compare
    for key, decides in MINE.items():
        if _at(tree, key) is not None:
            raise InputError(f"{path}: {key} is set, and {decides} decides it for each run; remove one of them")
    cells = [
        GridRun(
            fidelity=fidelity,
            seed=seed,
            trained=trained,
            recipe=load_run_recipe(path, [*overrides, *_overrides(fidelity, seed, trained)]),
        )
        for seed in settings.seeds
        for fidelity in settings.fidelity
        for trained in settings.trained
    ]
    return Comparison(
        settings=settings, name=cells[0].recipe.dataset.name, text=text, overrides=tuple(overrides), cells=tuple(cells)
    )


def _overrides(fidelity: str, seed: int, trained: str) -> list[str]:
    words = [f"render.fidelity={fidelity}", f"train.seed={seed}", f"evaluate.seed={NOISE_STRIDE * seed}"]
    if trained == "adapter_only":
        words += [
            "train.adapter.arm=adapter_only",
            'evaluate.modes=["control_only", "backbone_only"]',
            "evaluate.text_baseline=false",
        ]
    return words


def _at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree
