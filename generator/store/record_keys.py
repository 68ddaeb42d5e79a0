"""The keys of records: what a clip's frames, readings and truth depend on, as one sha256."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from generator.recipe.plan import ClipPlan, Plan
from generator.recipe.truth_section import TruthPasses
from generator.truth.truth_names import TRUTH_FORMAT
from scenes.control_axis import PROBES_VERSION


def clip_key(plan: Plan, clip: ClipPlan, blender: str) -> str:
    """Return the key of a clip's record: the sha256 of all its frames and readings depend on, Blender and probes among it, and
    of the truth that lies beside them."""
    return _record_key(plan.media_key(clip), blender, plan.recipe.truth)


def clip_keys(plan: Plan, blender: str) -> dict[str, str]:
    """Return the keys of a plan's records by clip id: as `clip_key`, for all of them at once."""
    return {clip.clip_id: _record_key(media_key, blender, plan.recipe.truth) for clip, media_key in plan.media_keys()}


def donor_keys(plan: Plan, blender: str, others: Iterable[TruthPasses | None]) -> dict[str, tuple[str, ...]]:
    """Return by clip id the keys of records that have the same frames and other truth: none, or that of other recipes."""
    kinds = [truth for truth in dict.fromkeys([None, *others]) if truth != plan.recipe.truth]
    if not kinds:
        return {}
    return {
        clip.clip_id: tuple(_record_key(media_key, blender, truth) for truth in kinds) for clip, media_key in plan.media_keys()
    }


def recipe_truth(recipe: Mapping[str, Any]) -> TruthPasses | None:
    """Return the truth that a recipe asks for, as a version keeps the recipe."""
    return None if recipe.get("truth") is None else TruthPasses.model_validate(recipe["truth"])


def _record_key(media_key: str, blender: str, truth: TruthPasses | None) -> str:
    words = f"{media_key} blender {blender} probes {PROBES_VERSION}"
    if truth is not None:
        words += f" truth {TRUTH_FORMAT} {' '.join(truth.passes)}"
    return hashlib.sha256(words.encode()).hexdigest()
