"""Which prompts an evaluation uses for each axis: given ones, a file's, or captions of a dataset's held-out scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from generator.versions.reading.dataset import Dataset
from scenes.errors import InputError
from trainer.config.evaluate import EvaluateSettings
from trainer.generation.prompts import read_prompts

HELD_OUT = ("validation", "test")


@dataclass(frozen=True, kw_only=True)
class EvaluationPrompts:
    """The prompts of each axis, and where they come from, in words."""

    by_axis: dict[str, tuple[str, ...]]
    source: str

    @property
    def all(self) -> tuple[str, ...]:
        """Every prompt once."""
        return tuple(dict.fromkeys(prompt for prompts in self.by_axis.values() for prompt in prompts))


def gather(
    settings: EvaluateSettings, axes: Sequence[str], file: Path | None, dataset: Path | None, ref: str = "latest"
) -> EvaluationPrompts:
    """Return at most `settings.prompts_count` prompts for each axis, spread evenly over what there is.

    Captions of a dataset are those of held-out scenes that vary the axis, because others may show nothing of it. The
    settings' own prompts go before a dataset's. Raises InputError for no prompts, two sources, and a dataset that holds
    nothing out.
    """
    if file is not None and (dataset is not None or settings.has_prompts):
        raise InputError(f"prompts of {file} and prompts from elsewhere were given; give one of them")
    if file is None and dataset is None and not settings.has_prompts:
        raise InputError("there is no prompt to evaluate with; give --prompts FILE, or --dataset DIR for held-out captions")
    count = settings.prompts_count
    if settings.axis_prompts:
        return EvaluationPrompts(by_axis=_by_axis(settings, axes), source="the settings")
    if dataset is not None and not settings.has_prompts:
        found = {axis: spread(captions(dataset, ref, axis), count) for axis in axes}
        return EvaluationPrompts(by_axis=found, source=f"captions of held-out scenes of {dataset.resolve().name}")
    words = settings.prompts if file is None else tuple(prompt.prompt for prompt in read_prompts(file))
    one = spread(tuple(dict.fromkeys(words)), count)
    return EvaluationPrompts(by_axis=dict.fromkeys(axes, one), source="the settings" if file is None else file.name)


def _by_axis(settings: EvaluateSettings, axes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the settings' own prompts of each axis; raises InputError for an axis that has none."""
    for axis in axes:
        if axis not in settings.axis_prompts:
            raise InputError(
                f"axis_prompts has prompts for {', '.join(settings.axis_prompts)} and none for '{axis}', which is swept; add "
                "some, or leave the axis out of axes"
            )
    given = settings.axis_prompts
    return {axis: spread(tuple(dict.fromkeys(given[axis])), settings.prompts_count) for axis in axes}


def captions(dataset: Path, ref: str, axis: str) -> tuple[str, ...]:
    """Return a caption for each held-out scene that varies an axis; raises InputError where there is none."""
    snapshot = Dataset.open(dataset, ref)
    labels = snapshot.labels
    column = f"{axis}_control"
    if column not in labels.column_names:
        raise InputError(f"dataset {dataset} has no axis '{axis}'; give one that has, or --prompts FILE")
    rows = zip(labels["split"].to_pylist(), labels["scene_id"].to_pylist(), labels["caption"].to_pylist(), strict=True)
    varied = [control is not None for control in labels[column].to_pylist()]
    by_scene: dict[str, str] = {}
    for (split, scene, caption), varies in zip(rows, varied, strict=True):
        if varies and split in HELD_OUT:
            by_scene.setdefault(scene, caption)
    if not by_scene:
        raise InputError(f"dataset {dataset} holds out no scene that varies {axis}; build more scenes, or give --prompts FILE")
    return tuple(dict.fromkeys(by_scene.values()))


def spread(prompts: Sequence[str], most: int) -> tuple[str, ...]:
    """Return at most `most` prompts, evenly spread, in their order."""
    places = np.linspace(0, len(prompts) - 1, min(most, len(prompts))).round().astype(int)
    return tuple(prompts[place] for place in places)
