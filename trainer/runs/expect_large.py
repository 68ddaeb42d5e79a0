"""What training, generating and evaluating take on a backbone of true size, reckoned from operations: nothing is loaded."""

from __future__ import annotations

from collections import Counter

from generator.recipe.plan import layer_counts
from trainer.backbones.weightless import weightless_pipeline
from trainer.config.evaluate import EvaluateSettings
from trainer.config.train import TrainSettings
from trainer.control import axis_control
from trainer.estimates.flops import PEAKS, Shape, step_flops
from trainer.estimates.footprint import OPTIMIZER_BYTES
from trainer.generation.sampler import Sampling
from trainer.runs.expect import READ_S_PER_PIXEL, ExpectedCost, expected_fep_videos, expected_videos
from trainer.runs.run_recipe import RunRecipe
from trainer.training.dry_run import Sizes, trainable_counts

CARD = "H100"
SHARE = 0.35  # of the card's peak that is taken to be reached; assumed, not measured
PIXEL_BYTES = 0.04  # of a generated video at CRF 12, a pixel
WAN = Sampling()


def sizes_of(recipe: RunRecipe, train: TrainSettings) -> Sizes:
    """Return the sizes of a run's training from its recipe alone; raises InputError for a backbone that cannot be described."""
    dataset = recipe.dataset
    axes = tuple(axis_control(name, dataset.law(name)) for name in train.adapter.axes or dataset.used_axes)
    lengths = sorted({length for _, _, length, *_ in layer_counts(dataset)})
    shapes = tuple((length, dataset.video.height, dataset.video.width) for length in lengths)
    return Sizes(settings=train, pipe=weightless_pipeline(train.backbone.name), axes=axes, shapes=shapes)


def expect_large(recipe: RunRecipe, train: TrainSettings, sizes: Sizes) -> dict[str, ExpectedCost]:
    """Return what the three stages take on one card, and on one core where the card has nothing to do."""
    settings, card = recipe.evaluate, PEAKS[CARD] * SHARE
    shape = Shape.of(sizes.transformer)
    counts = Counter[int]()
    for _, _, length, _, count in layer_counts(recipe.dataset):
        counts[length] += count
    clips = sum(counts.values())

    def flops(tokens: int, *, forward_only: bool = False) -> float:
        one = step_flops(
            shape,
            sizes.adapter,
            tokens=tokens,
            text_tokens=train.backbone.text_max_length,
            checkpointing=train.gradient_checkpointing,
        )
        return one.forward if forward_only else one.hardware

    video = recipe.dataset.video
    mean = sum(count * flops(sizes.tokens(length, video.height, video.width)) for length, count in counts.items()) / clips
    trained = train.steps * train.accumulation * train.batch_size * mean
    weights = sum(trainable_counts(sizes).values())
    checkpoint = weights * (4 + OPTIMIZER_BYTES[train.optimizer.name])
    frames, width, height, steps, guidance = _sampling(settings)
    videos, fep_videos = expected_videos(recipe), expected_fep_videos(recipe)
    forward = flops(sizes.tokens(frames, height, width), forward_only=True) * (2 if guidance > 1 else 1)
    pixels = frames * width * height
    return {
        "train": ExpectedCost(
            cpu_s=0.0, gpu_s=trained / card, size_bytes=round(4 * weights + train.checkpoints.keep * checkpoint)
        ),
        "generate": ExpectedCost(
            cpu_s=0.0, gpu_s=videos * steps * forward / card, size_bytes=round(videos * pixels * PIXEL_BYTES)
        ),
        "evaluate": ExpectedCost(cpu_s=videos * pixels * READ_S_PER_PIXEL, gpu_s=fep_videos * forward / card),
    }


def _sampling(settings: EvaluateSettings) -> tuple[int, int, int, int, float]:
    """Return frames, width, height, steps and guidance: what is said, else Wan's own."""
    guidance = settings.guidance if settings.guidance is not None else WAN.guidance
    return (
        settings.frames or WAN.frames,
        settings.width or WAN.width,
        settings.height or WAN.height,
        settings.steps or WAN.steps,
        guidance,
    )
