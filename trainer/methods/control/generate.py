"""The sampling loop of the method `control`: the same prompt, the same noise, nothing differs but the control.

Shapes: N videos, T frames, H rows, W columns, 3 channels (sRGB), L text tokens, X text width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from diffusers import WanPipeline
from torch import Tensor

from scenes.arrays import Bytes
from scenes.errors import InputError
from trainer.adapters.saved import SavedAdapter
from trainer.generation.plan import Point
from trainer.generation.sampler import Sampling, Stepped, check_sampling, encode_text, to_bytes
from trainer.pipelines.controlled_wan import DATASET_FPS, ControlledWan, control_acts


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
    fps: float = DATASET_FPS,
    on_step: Stepped | None = None,
) -> Iterator[Bytes]:
    """Yield a video [T, H, W, 3] per point (`{"shutter": 0.7}`: controls by axis) as they are finished, `batch` at a time.

    A control may be a curve, whose seconds are those of a video at `fps`. An axis without a value is neutral; all videos are
    made from the same noise. Raises InputError for a size the backbone cannot take, an axis the adapter lacks, an unknown mode,
    a curve that goes on after the video, and too little memory.
    """
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

        yield from _batch(pipe, some, text, sampling, seed, mode, strength, fps, count)


def _batch(
    pipe: ControlledWan,
    points: Sequence[Point],
    text: Mapping[str, Tensor],
    sampling: Sampling,
    seed: int,
    mode: str | None,
    strength: float,
    fps: float,
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
            fps=fps,
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


class ControlGeneration:
    """How the method makes videos (`trainer.generation.sampler.GenerationParts`); without an adapter, as the backbone does."""

    sample = staticmethod(sample)

    def pipeline(self, bare: WanPipeline, adapter: SavedAdapter, *, allow_other_backbone: bool = False) -> ControlledWan:
        """Return a pipeline with a saved adapter on it; raises InputError where they do not fit."""
        return ControlledWan.from_pipeline(bare, adapter, allow_other_backbone=allow_other_backbone)


GENERATION = ControlGeneration()
