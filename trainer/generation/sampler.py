"""Runs a ControlledWan over the control values of a sweep: the same prompt, the same noise, nothing else differs.

Shapes: N videos, T frames, H rows, W columns, 3 channels (sRGB), L text tokens, X text width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import WanPipeline
from numpy.typing import NDArray
from torch import Tensor

from scenes.errors import InputError
from trainer.backbones.text_length import WAN_TOKENS
from trainer.generation.plan import Point, labels_of
from trainer.pipelines.controlled_wan import ControlledWan, check_size, control_acts, unguided_share

MOST_TEXT_TOKENS = 4096  # as a training's text_max_length
Bytes = NDArray[np.uint8]
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


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Videos of one prompt and seed: frames, the controls asked for, and their values in units, one tuple per video."""

    frames_NTHW3: Bytes
    points: tuple[Point, ...]
    labels: tuple[tuple[str, ...], ...]


def generate_sweep(
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
    on_step: Stepped | None = None,
) -> Sweep:
    """Return a video per point (`{"shutter": 0.7}`, controls by axis; an axis without one is neutral), all from the same noise.

    Raises InputError for a size the backbone cannot take, an axis the adapter lacks, an unknown mode, and too little memory.
    """
    videos = list(
        sample(
            pipe,
            prompt,
            points,
            sampling=sampling,
            seed=seed,
            negative=negative,
            mode=mode,
            strength=strength,
            batch=batch,
            on_step=on_step,
        )
    )
    labels = tuple(labels_of(pipe.axes, point) for point in points)
    return Sweep(frames_NTHW3=np.stack(videos), points=tuple(points), labels=labels)


def sample(
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
    on_step: Stepped | None = None,
) -> Iterator[Bytes]:
    """Yield the frames [T, H, W, 3] of `generate_sweep` as they are finished, `batch` videos at a time."""
    check_sampling(pipe, sampling)
    if batch < 1:
        raise InputError(f"batch {batch} cannot be; give 1 or more videos at a time")
    if not 0 <= seed < 2**63:
        raise InputError(f"seed {seed} cannot be; give one from 0 to 2^63 - 1")
    text = encode_text(pipe, prompt, negative, sampling)
    for start in range(0, len(points), batch):
        some = points[start : start + batch]

        def count(_pipe: object, step: int, _time: object, values: dict[str, Any], before: int = start) -> dict[str, Any]:
            # an interrupted batch counts as its videos' steps
            if on_step is not None:
                on_step(before * sampling.steps + (step + 1) * len(some), len(points) * sampling.steps)  # noqa: B023
            return values

        yield from _batch(pipe, some, text, sampling, seed, mode, strength, count)


def check_sampling(pipe: WanPipeline, sampling: Sampling) -> None:
    """Raise InputError for a size, a number of steps or a guidance that cannot be."""
    check_size(pipe, height=sampling.height, width=sampling.width, num_frames=sampling.frames)
    if sampling.steps < 1:
        raise InputError(f"{sampling.steps} steps make no video; give 1 or more, Wan's own number is 50")
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


def _batch(
    pipe: ControlledWan,
    points: Sequence[Point],
    text: Mapping[str, Tensor],
    sampling: Sampling,
    seed: int,
    mode: str | None,
    strength: float,
    callback: Callable[..., dict[str, Any]],
) -> Bytes:
    """Return videos [N, T, H, W, 3], each from the noise of a generator of its own that starts at `seed`."""
    axes = dict.fromkeys(name for point in points for name in point)
    configs = [adapter.config for adapter in pipe.adapters.values()]
    embeds: dict[str, Any] = {name: embeds_1LX.expand(len(points), -1, -1) for name, embeds_1LX in text.items()}
    try:
        made = pipe(
            control={name: [point.get(name, 0.0) for point in points] for name in axes},
            mode=mode,
            strength=strength,
            control_guidance=sampling.control_guidance if control_acts(configs, mode, strength) else 1.0,
            # drawn on the CPU, so that a seed means the same noise on every device
            generator=[torch.Generator("cpu").manual_seed(seed) for _ in points],
            height=sampling.height,
            width=sampling.width,
            num_frames=sampling.frames,
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.guidance,
            max_sequence_length=sampling.text_tokens,
            output_type="np",
            callback_on_step_end=callback,
            **embeds,
        ).frames
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):  # what the CPU says
            raise
        size = f"{sampling.width}x{sampling.height}x{sampling.frames}, {len(points)} at a time"
        raise InputError(
            f"out of memory at {size}; lower --batch, --frames, --width and --height, or use --offload model, group or "
            "sequential, --quantize fp8 or nf4"
        ) from error
    return to_bytes(made)


def to_bytes(frames_NTHW3: NDArray[np.floating[Any]]) -> Bytes:
    """Return frames in [0, 1] as 8-bit ones; raises InputError where the model gave no numbers."""
    if not np.isfinite(frames_NTHW3).all():
        raise InputError("the model gave no finite picture (NaN); use --dtype bf16 or fp32, and a strength nearer 1")
    return np.rint(np.clip(frames_NTHW3, 0.0, 1.0) * 255.0).astype(np.uint8)
