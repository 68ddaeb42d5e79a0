"""Runs beside each other: what was set and what came out, with the settings in which they differ."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generator.recipe.load import parse_tree
from trainer.config.train import flat
from trainer.runs.run_folder import read_facts, read_recipe
from trainer.runs.stage_runner import read_state


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One run: where it is, its settings and results by flat name, and the last stage that is done."""

    folder: Path
    name: str
    settings: dict[str, Any]
    results: dict[str, Any]
    stage: str
    wall_s: float


def summarise(folder: Path) -> RunSummary:
    """Return a run's summary; raises InputError for a folder that is no run or cannot be read."""
    facts, state = read_facts(folder), read_state(folder)
    text = read_recipe(folder, facts)
    tree = parse_tree(text, source=str(folder / "recipe.toml"), overrides=facts.overrides)
    results = {name: value for record in state.stages.values() for name, value in record.summary.items()}
    return RunSummary(
        folder=folder,
        name=f"{facts.name}/{facts.run}",
        settings=flat(_listed(tree)),
        results=results,
        stage=next(reversed(state.stages), "nothing"),
        wall_s=sum(record.wall_s for record in state.stages.values()),
    )


def differing(runs: list[RunSummary]) -> list[str]:
    """Return the settings that are not the same in all runs, sorted."""
    names = {name for run in runs for name in run.settings}
    return sorted(name for name in names if len({repr(run.settings.get(name)) for run in runs}) > 1)


def _listed(tree: Any) -> Any:
    """Return a tree whose lists of tables are tables by position."""
    if isinstance(tree, dict):
        return {key: _listed(value) for key, value in tree.items()}
    if isinstance(tree, list) and any(isinstance(item, dict) for item in tree):
        return {str(position): _listed(item) for position, item in enumerate(tree)}
    return tree
