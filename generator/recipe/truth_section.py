"""The [truth] section of a recipe: which pictures of ground truth a dataset keeps beside its clips."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, field_validator

from generator.recipe.section import Section

Pass = Literal["depth", "flow", "instances", "normals", "sharp"]
PASSES: tuple[Pass, ...] = get_args(Pass)


class TruthPasses(Section):
    """Ground truth of every scene; cameras, objects, boxes and tracks come with any of it, and with none."""

    passes: tuple[Pass, ...] = Field(
        default=PASSES,
        description="depth, flow, instances, normals, sharp (the pinhole clip without exposure time); [] for boxes and cameras",
    )

    @field_validator("passes")
    @classmethod
    def _once_each(cls, names: tuple[Pass, ...]) -> tuple[Pass, ...]:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"'{twice[0]}' stands twice; name each pass once")
        return tuple(name for name in PASSES if name in names)
