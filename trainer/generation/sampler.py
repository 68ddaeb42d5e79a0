"""How videos are sampled: the settings, the text, and what every method's loop is asked (`trainer/methods/*/generate.py`).

Shapes: N videos, T frames, H rows, W columns, 3 channels (sRGB), L text tokens, X text width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from diffusers import WanPipeline
from numpy.typing import NDArray
from torch import Tensor

from scenes.arrays import Bytes
from scenes.errors import InputError
from trainer.adapters.saved import SavedAdapter
from trainer.backbones.text_length import WAN_TOKENS
from trainer.generation.plan import Point
from trainer.methods import Method
from trainer.pipelines.controlled_wan import DATASET_FPS, ControlledWan, check_size, unguided_share

MOST_TEXT_TOKENS = 4096  # as a training's text_max_length
MOST_PX, MOST_FRAMES = 8192, 1025  # as a recipe's
MOST_STEPS = 1000  # timesteps that Wan's schedules have
Stepped = Callable[[int, int], None]  # denoising steps made and in all, over the whole call


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How videos are sampled; `guidance` up to 1 means one pass without a negative prompt.

    `control_guidance` says how many times as far guidance pushes towards the control as it was learned.
    """

    width: int = 832
    height: int = 480
    frames: int = 81
    steps: int = 50
    guidance: float = 5.0
    control_guidance: float = 1.0
    text_tokens: int = WAN_TOKENS


class SampleVideos(Protocol):
    """The sampling loop of a method."""

    def __call__(
        self,
        pipe: ControlledWan,
        prompt: str,
        points: Sequence[Point],
        *,
        sampling: Sampling,
        seed: int = 0,
        negative: str = "",
        mode: str | None = None,
        strength: float = 1.0,
        batch: int = 1,
        fps: float = DATASET_FPS,
        on_step: Stepped | None = None,
    ) -> Iterator[Bytes]:
        """Yield a video [T, H, W, 3] per point (`{"shutter": 0.7}`: controls by axis), all from the same noise.

        `fps` is the rate at which the seconds of a curve are counted.
        """
        ...


class GenerationParts(Protocol):
    """How a method makes videos: what `Method.generation` of `trainer.methods` names."""

    sample: SampleVideos

    def pipeline(self, bare: WanPipeline, adapter: SavedAdapter, *, allow_other_backbone: bool = False) -> ControlledWan:
        """Return a pipeline with a saved adapter on it; raises InputError where they do not fit."""
        ...


def generation_of(method: Method) -> GenerationParts:
    """Return how a method makes videos."""
    parts: GenerationParts = method.load("generation")
    return parts


def check_sampling(pipe: WanPipeline, sampling: Sampling) -> None:
    """Raise InputError for a size, a number of steps or a guidance that cannot be."""
    check_size(pipe, height=sampling.height, width=sampling.width, num_frames=sampling.frames)
    if max(sampling.width, sampling.height) > MOST_PX or sampling.frames > MOST_FRAMES:
        raise InputError(
            f"{sampling.frames} frames of {sampling.width}x{sampling.height} cannot be; give at most {MOST_FRAMES} frames and "
            f"{MOST_PX} pixels a side"
        )
    if sampling.steps < 1:
        raise InputError(f"{sampling.steps} steps make no video; give 1 or more, Wan's own number is 50")
    if sampling.steps > MOST_STEPS:
        raise InputError(f"{sampling.steps} steps cannot be; give at most {MOST_STEPS}, as many as a schedule is trained on")
    if not 0 <= sampling.guidance < float("inf"):
        raise InputError(f"guidance {sampling.guidance:g} cannot be; give 0 or more, 1 for none, Wan's own is 5")
    if not 1 <= sampling.text_tokens <= MOST_TEXT_TOKENS:
        raise InputError(
            f"{sampling.text_tokens} text tokens cannot be; give 1 to {MOST_TEXT_TOKENS}, as many as in training; Wan's own "
            f"are {WAN_TOKENS}"
        )
    unguided_share(sampling.control_guidance, sampling.guidance)


@torch.no_grad()
def encode_text(pipe: ControlledWan, prompt: str, negative: str, sampling: Sampling) -> dict[str, Tensor]:
    """Return the embeddings [1, L, X] of a prompt and, under guidance, of the negative one: once for a whole sweep."""
    guided = sampling.guidance > 1
    embeds_1LX, negative_1LX = pipe.encode_prompt(
        prompt,
        negative if guided else None,
        do_classifier_free_guidance=guided,
        max_sequence_length=sampling.text_tokens,
        device=pipe._execution_device,
    )
    return {"prompt_embeds": embeds_1LX} | ({"negative_prompt_embeds": negative_1LX} if guided else {})


def to_bytes(frames_NTHW3: NDArray[np.floating[Any]]) -> Bytes:
    """Return frames in [0, 1] as 8-bit ones; raises InputError where the model gave no numbers."""
    if not np.isfinite(frames_NTHW3).all():
        raise InputError("the model gave no finite picture (NaN); use --dtype bf16 or fp32, and a strength nearer 1")
    return np.rint(np.clip(frames_NTHW3, 0.0, 1.0) * 255.0).astype(np.uint8)
