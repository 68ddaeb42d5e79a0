"""What a person may say about the method `control`: `[train.adapter]`. Nothing here needs torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from generator.recipe.section import Section
from scenes.axes import AXES
from scenes.errors import closest

BlockIndex = Annotated[int, Field(ge=0)]


class AdapterSettings(Section):
    """The adapter: what is added to the backbone and which of it trains."""

    arm: Literal["joint", "adapter_only", "lora_only"] = Field(default="joint", description="control adapter and LoRA, or one")
    axes: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="axes to learn; all of the dataset if none given"
    )
    blocks: Literal["deepest_third", "all"] | tuple[BlockIndex, ...] = Field(
        default="deepest_third", description="conditioned blocks: deepest_third, all, or a list of indices"
    )
    gate: Literal["fixed", "learned"] = Field(default="fixed", description="whether the gate g of the control attention learns")
    gate_value: float = Field(default=0.5, ge=-1e6, le=1e6, description="the gate's value, or where it starts")
    rank: int = Field(default=32, ge=1, le=4096, description="rank of the control projections")
    alpha: float = Field(default=32.0, gt=0, le=1e6, description="scale of the control projections, over the rank")
    tokens: int = Field(default=4, ge=1, le=1024, description="control tokens")
    lora_rank: int = Field(default=32, ge=1, le=4096, description="rank of the backbone LoRA")
    lora_alpha: float = Field(default=32.0, gt=0, le=1e6, description="scale of the backbone LoRA, over the rank")
    ramp_steps: int = Field(default=100, ge=0, description="steps over which the control attention fades in, 0 for at once")

    @field_validator("axes", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("axes")
    @classmethod
    def _known(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in names or ():
            if name not in AXES:
                raise ValueError(f"unknown axis '{name}'{closest(name, AXES)}; known: {', '.join(AXES)}")
        if names is not None and len(set(names)) != len(names):
            raise ValueError("an axis stands twice; name each once")
        return names
