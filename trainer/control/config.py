"""What an adapter is, declared once: axes, conditioned blocks, ranks. The trainer, the folder and the formats read this."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from scenes.errors import InputError
from trainer.config.train import TrainSettings
from trainer.control.laws import FROZEN, AxisControl

BlockChoice = Literal["deepest_third", "all"]

# Beyond what any backbone has: a card that asks for more is damaged or hostile, and must not cost memory.
MAX_RANK = 4096
MAX_TOKENS = 1024
MAX_BLOCKS = 1024
MAX_WIDTH = 65536
MAX_ALPHA = 1e6
Rank = Annotated[int, Field(ge=1, le=MAX_RANK)]
Alpha = Annotated[float, Field(gt=0, le=MAX_ALPHA)]
Width = Annotated[int, Field(ge=1, le=MAX_WIDTH)]


class ControlConfig(BaseModel):
    """The control adapter of DESIGN section 4; `blocks` are the resolved, ascending indices of the conditioned blocks."""

    model_config = FROZEN

    axes: Annotated[tuple[AxisControl, ...], Field(max_length=64)]
    blocks: Annotated[tuple[int, ...], Field(max_length=MAX_BLOCKS)]
    rank: Rank = 32
    alpha: Alpha = 32.0
    tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] = 4
    embed_dim: Width = 256
    hidden_dim: Width = 64
    gate: Literal["fixed", "learned"] = "fixed"
    gate_value: Annotated[float, Field(ge=-MAX_ALPHA, le=MAX_ALPHA)] = 0.5

    @model_validator(mode="after")
    def _check(self) -> ControlConfig:
        names = [axis.name for axis in self.axes]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"axes must be one or more different ones, received {names}")
        if (
            not self.blocks
            or list(self.blocks) != sorted(set(self.blocks))
            or self.blocks[0] < 0
            or self.blocks[-1] >= MAX_BLOCKS
        ):
            raise ValueError(f"blocks must be ascending indices from 0 to {MAX_BLOCKS - 1}, received {list(self.blocks)[:8]}")
        return self


class LoraSettings(BaseModel):
    """The backbone LoRA: rank and alpha on every projection of every block."""

    model_config = FROZEN

    rank: Rank = 32
    alpha: Alpha = 32.0


class AdapterConfig(BaseModel):
    """Control adapter, LoRA, or both: the arms `adapter_only`, `lora_only` and `joint` of a training run."""

    model_config = FROZEN

    control: ControlConfig | None
    lora: LoraSettings | None

    @model_validator(mode="after")
    def _check(self) -> AdapterConfig:
        if self.control is None and self.lora is None:
            raise ValueError("an adapter needs a control adapter, a LoRA, or both")
        return self


def adapter_config(settings: TrainSettings, axes: tuple[AxisControl, ...], num_layers: int) -> AdapterConfig:
    """Return the adapter that the settings of a training ask for, on a backbone of `num_layers` blocks."""
    chosen = settings.adapter
    control = ControlConfig(
        axes=axes,
        blocks=resolve_blocks(chosen.blocks, num_layers),
        rank=chosen.rank,
        alpha=chosen.alpha,
        tokens=chosen.tokens,
        gate=chosen.gate,
        gate_value=chosen.gate_value,
    )
    lora = LoraSettings(rank=chosen.lora_rank, alpha=chosen.lora_alpha)
    return AdapterConfig(
        control=None if chosen.arm == "lora_only" else control, lora=None if chosen.arm == "adapter_only" else lora
    )


def resolve_blocks(choice: BlockChoice | Sequence[int], num_layers: int) -> tuple[int, ...]:
    """Return the indices of the conditioned blocks of a backbone with `num_layers` blocks.

    `deepest_third` is the last `num_layers // 3` blocks (27 to 39 of 40). Raises InputError for indices that the backbone
    does not have and for a backbone too shallow to have a third.
    """
    if choice == "all":
        return tuple(range(num_layers))
    if choice == "deepest_third":
        if num_layers < 3:
            raise InputError(f"a backbone of {num_layers} blocks has no deepest third; give blocks = 'all' or a list")
        return tuple(range(num_layers - num_layers // 3, num_layers))
    if isinstance(choice, str):
        raise InputError(f"blocks '{choice}' is unknown; give 'deepest_third', 'all' or a list of block indices")
    chosen = sorted(set(choice))
    if not chosen or len(chosen) != len(choice) or chosen[0] < 0 or chosen[-1] >= num_layers:
        raise InputError(f"blocks {list(choice)} do not fit; give different indices from 0 to {num_layers - 1}")
    return tuple(chosen)
