"""What later stages of a run are bound to refuse, refused before anything is rendered, and in a dry run."""

from __future__ import annotations

from pathlib import Path

from generator.recipe.backbone_grid import Grid, backbone_grid
from generator.recipe.label_proof import unproven
from generator.recipe.plan import ClipPlan, Plan, layer_counts
from generator.store.splits import SplitRatios, split_of
from generator.versions.history.history import History
from scenes.errors import InputError, StopdownError
from trainer.config.evaluate import EvaluateSettings
from trainer.config.train import TrainSettings
from trainer.evaluation.axis_prompts import HELD_OUT
from trainer.runs.run_recipe import RunRecipe


def check_before_rendering(recipe: RunRecipe, dataset: Path) -> None:
    """Raise InputError in one line for what ends the run later.

    That is an axis of which no label can be verified, sizes that the backbone cannot take, and splits without the clips that
    training, previews or the evaluation need. A backbone that is not known by name is looked up where it lies.
    """
    plan, train = recipe.plan(), recipe.train(dataset, "latest", Path())
    hopeless = [one.line for one in unproven(plan) if one.hopeless]
    if hopeless:
        raise InputError(hopeless[0])
    _check_sizes(recipe, train)
    _check_splits(plan, train, recipe.evaluate, _ratios(dataset))


def _check_sizes(recipe: RunRecipe, train: TrainSettings) -> None:
    grid = backbone_grid(train.backbone.name) or _looked_up(train.backbone.name)
    video, previews, shown = recipe.dataset.video, train.previews, recipe.evaluate
    sizes = [("video", video.width, video.height, length) for _, _, length, *_ in layer_counts(recipe.dataset)]
    if previews.every:
        sizes.append(("train.previews", previews.width, previews.height, previews.frames))
    sizes.append(("evaluate", shown.width or grid.width, shown.height or grid.height, shown.frames or 1))
    for section, width, height, frames in sizes:
        try:
            grid.check(width=width, height=height, frames=frames)
        except InputError as error:
            raise InputError(f"{recipe.source}: {section}: {error} (backbone {train.backbone.name})") from None


def _looked_up(name: str) -> Grid:
    from trainer.backbones.weightless import weightless_pipeline
    from trainer.pipelines.controlled_wan import grid_of  # which needs torch

    return grid_of(weightless_pipeline(name))


def _check_splits(plan: Plan, train: TrainSettings, evaluate: EvaluateSettings, ratios: SplitRatios) -> None:
    """Raise InputError where a split lacks what it is needed for; which scene is in which follows from its id alone."""
    learnt = train.adapter.axes or plan.recipe.used_axes
    by_split: dict[str, list[ClipPlan]] = {}
    for clip in plan.clips:
        by_split.setdefault(split_of(clip.scene_id, ratios), []).append(clip)
    scenes = f"of {len(plan.scenes)} scenes; raise scenes_per_layer"
    for axis in learnt:
        if not any(clip.controls.get(axis) for clip in by_split.get(train.train_split, ())):
            raise InputError(f"the split '{train.train_split}' gets no clip that varies {axis}, {scenes}")
    own = train.previews
    if own.every and not own.prompts and not by_split.get(train.validation_split):
        raise InputError(
            f"train.previews has no prompts, and the split '{train.validation_split}' gets no clip to take captions from, "
            f"{scenes}, or set train.previews.prompts"
        )
    if evaluate.has_prompts:
        return
    for axis in evaluate.axes or learnt:
        if not any(axis in clip.controls for split in HELD_OUT for clip in by_split.get(split, ())):
            raise InputError(
                f"evaluate has no prompts, and no held-out clip that varies {axis} gives its caption, {scenes}, or set "
                "evaluate.prompts"
            )


def _ratios(dataset: Path) -> SplitRatios:
    """Return the shares of the splits as the build will commit them: a dataset that is there keeps its own."""
    try:
        return History.open(dataset).split_ratios()
    except StopdownError:
        return SplitRatios()
