"""The LoRAs that `--lora` puts beside an adapter, as written: `FILE`, `FILE:0.8`, `transformer_2=FILE:0.8`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import WanPipeline

from generator.io.atomic import file_digest
from scenes.errors import InputError
from trainer.backbones.load import EXPERTS, experts
from trainer.formats.foreign_lora import check_fits, file_of, read_lora


@dataclass(frozen=True, kw_only=True)
class ExtraLora:
    """A LoRA file, its weight, and the transformer that it is for: all of them if None."""

    path: Path
    weight: float = 1.0
    expert: str | None = None


def parse_loras(words: Sequence[str]) -> tuple[ExtraLora, ...]:
    """Return the LoRAs of `--lora`; raises InputError for a file that is not there and a weight that is no number."""
    return tuple(_parse(word) for word in words)


def _parse(word: str) -> ExtraLora:
    expert, _, rest = word.partition("=")
    if expert not in EXPERTS:
        expert, rest = "", word
    path, colon, last = rest.rpartition(":")
    if not colon or Path(rest).exists():
        path, last = rest, "1"
    try:
        weight = float(last)
    except ValueError:
        path, weight = rest, 1.0
    if not math.isfinite(weight):
        raise InputError(f"--lora {word}: weight {last} is not a number; give FILE:WEIGHT, such as {path}:0.8")
    if not Path(path).exists():
        raise InputError(f"--lora {word}: {path} does not exist; give a .safetensors file, or FILE:WEIGHT")
    return ExtraLora(path=Path(path), weight=weight, expert=expert or None)


def check_loras(loras: Sequence[ExtraLora], pipe: WanPipeline) -> None:
    """Raise InputError for what is no LoRA of this backbone; `pipe` may have no weights (`trainer.backbones.weightless`)."""
    for lora in loras:
        if lora.expert is not None and lora.expert not in experts(pipe):
            raise InputError(f"--lora {lora.expert}={lora.path}: this backbone has no '{lora.expert}'; leave it out")
        read = read_lora(lora.path)
        for name, expert in experts(pipe).items():
            if lora.expert in (None, name):
                check_fits(read, expert)


def lora_record(loras: Sequence[ExtraLora]) -> dict[str, Any]:
    """Return what a video's recipe says of extra LoRAs; nothing where there are none, as in records from before."""
    if not loras:
        return {}
    return {
        "loras": [
            {"sha256": file_digest(file_of(lora.path)), "weight": lora.weight, "transformer": lora.expert or "all"}
            for lora in loras
        ]
    }
