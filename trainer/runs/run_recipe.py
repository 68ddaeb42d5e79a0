"""A recipe for a whole run: a dataset, how it is learnt, and how the result is judged, in one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generator.building.plan_check import check_trainable
from generator.recipe.blend_file import with_annotation
from generator.recipe.load import parse_tree, read_text, validate
from generator.recipe.plan import Plan, make_plan
from generator.recipe.schema import Recipe
from generator.recipe.section import Section
from scenes.errors import InputError
from trainer.config.evaluate import LEAST_FOR_DISTANCE, WITHOUT_LORA, EvaluateSettings
from trainer.config.recipe import TrainRecipe, with_present_names
from trainer.config.train import TrainSettings
from trainer.evaluation.axis_prompts import gather
from trainer.methods import METHODS


class EvaluateRecipe(Section):
    """A tree with nothing but an `[evaluate]` section."""

    evaluate: EvaluateSettings


@dataclass(frozen=True, kw_only=True)
class RunRecipe:
    """A recipe with every section checked; `text` is the file, `overrides` what the command line changed."""

    dataset: Recipe
    evaluate: EvaluateSettings
    text: str
    overrides: tuple[str, ...]
    tree: dict[str, Any]
    source: str

    def plan(self) -> Plan:
        """Return the dataset's plan."""
        return make_plan(self.dataset)

    def train(self, dataset: Path, version_id: str, out: Path) -> TrainSettings:
        """Return the training settings on a version of the run's own dataset."""
        section = {**self.tree["train"], "dataset": str(dataset), "ref": version_id, "out": str(out)}
        return validate(TrainRecipe, {"train": section}, self.source).train


def load_run_recipe(path: Path, overrides: Sequence[str] = ()) -> RunRecipe:
    """Read a recipe for a run; raises InputError in one line for a section that is missing or wrong.

    `[train] dataset`, `ref` and `out` are the run's own business and refused; `[evaluate]` may be left out.
    """
    text = read_text(path)
    tree = with_present_names(parse_tree(text, source=str(path), overrides=overrides), str(path))
    dataset = validate(Recipe, with_annotation(tree, path.parent), str(path))
    if "train" not in tree:
        raise InputError(f"{path} has no [train] section, which a run needs; add one, or use `stopdown build` for data alone")
    mine = [key for key in ("dataset", "ref", "out") if key in tree["train"]]
    if mine:
        raise InputError(f"{path}: train.{mine[0]} cannot be set in a run, which trains on the dataset it builds; remove it")
    check_trainable(dataset)
    evaluate = validate(EvaluateRecipe, {"evaluate": tree.get("evaluate", {})}, str(path)).evaluate
    made = RunRecipe(dataset=dataset, evaluate=evaluate, text=text, overrides=tuple(overrides), tree=tree, source=str(path))
    settings = made.train(Path(), "latest", Path())  # its mistakes are told now, not after an hour of rendering
    controls = " or ".join(f"'{method.name}'" for method in METHODS.values() if method.controls)
    if not METHODS[settings.method].controls:
        raise InputError(f"{path}: train.method is '{settings.method}', and `stopdown run` trains a control; use {controls}")
    missing = [name for name in settings.adapter.axes or () if name not in dataset.used_axes]
    if missing:
        raise InputError(
            f"{path}: train.adapter.axes names '{missing[0]}', which no pyramid varies; it has {', '.join(dataset.used_axes)}"
        )
    _check_evaluation(evaluate, settings, dataset.used_axes, str(path))
    return made


def _check_evaluation(evaluate: EvaluateSettings, train: TrainSettings, used: Sequence[str], source: str) -> None:
    """Raise InputError for an evaluation that the adapter to be trained cannot serve."""
    learnt, arm = train.adapter.axes or used, train.adapter.arm
    for name in evaluate.axes or ():
        if name not in learnt:
            raise InputError(f"{source}: evaluate.axes names '{name}', and the adapter learns {', '.join(learnt)}; use those")
    if arm == "lora_only":
        raise InputError(
            f"{source}: train.adapter.arm is '{arm}', and `stopdown run` trains a control; use 'joint' or 'adapter_only'"
        )
    own = evaluate.modes if evaluate.modes != EvaluateSettings.model_fields["modes"].default else ()
    lacking = [mode for mode in own if mode not in WITHOUT_LORA]
    if arm == "adapter_only" and lacking:
        raise InputError(
            f"{source}: evaluate.modes names '{lacking[0]}', which needs a LoRA, and train.adapter.arm = '{arm}' trains none; "
            f"allowed are {', '.join(sorted(WITHOUT_LORA))}"
        )
    if evaluate.has_prompts:
        count = len(gather(evaluate, evaluate.axes or learnt, None, None).all)
        if evaluate.fep and count < LEAST_FOR_DISTANCE:
            raise InputError(
                f"{source}: {count} prompts are too few for a Fréchet distance; give at least {LEAST_FOR_DISTANCE}, or leave "
                "it out with evaluate.fep = false"
            )
