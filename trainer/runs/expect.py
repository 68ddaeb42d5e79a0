"""What the stages of a run will take, before it begins; measured figures of the bundled backbone, none for another."""

from __future__ import annotations

from dataclasses import dataclass

from generator.recipe.estimate import estimate
from trainer.config.evaluate import CONTROLLED, WITHOUT_LORA, EvaluateSettings, parse_controls
from trainer.config.train import TrainSettings
from trainer.runs.run_recipe import RunRecipe

# CPU seconds of one core on the bundled backbone, at 64 x 64 and 5 frames (32 tokens), measured with `stopdown run`.
MEASURED = "tiny"
TRAIN_S_PER_CLIP = 0.009  # of a step
SAMPLE_S_PER_STEP = 0.012  # of a video, with guidance
READ_S_PER_VIDEO = 0.14
READ_S_PER_PIXEL = 2e-6  # of larger videos, all probes: 252 x 252, 9 frames
FEP_S_PER_VIDEO = 0.03  # one step, decoded and described
START_S = 2.0  # of Blender
FRAME_S = {"lit": 0.6, "pbr": 0.9}  # a frame with light transport takes that long, however small it is
LOAD_S = 5.0  # each of training, generation and evaluation
PIXELS = 64 * 64 * 5
TOY_STEPS, TOY_FRAMES = 20, 9  # as `trainer.generation.load_pipeline` samples from a small backbone
ADAPTER_BYTES = 4_000_000
VIDEO_BYTES, PAGE_BYTES = 10_000, 5_000_000


@dataclass(frozen=True, kw_only=True)
class ExpectedCost:
    """What a stage takes; None where nothing was measured to reckon from."""

    cpu_s: float | None
    size_bytes: int | None = None
    gpu_s: float | None = None  # where a GPU does the work


def expect(recipe: RunRecipe, train: TrainSettings) -> dict[str, ExpectedCost]:
    """Return what each stage of a run takes on one core, and what it leaves on the disk."""
    cost = estimate(recipe.dataset)
    videos, unknown = expected_videos(recipe), ExpectedCost(cpu_s=None)
    least = cost.rendered_frames * FRAME_S.get(recipe.dataset.render.fidelity, 0.0)
    found = {
        "build": ExpectedCost(cpu_s=START_S + max(cost.cpu_s, least), size_bytes=cost.size_bytes),
        "verify": ExpectedCost(cpu_s=1.0 + 0.02 * cost.clips),
        "version": ExpectedCost(cpu_s=0.5),
        **dict.fromkeys(("train", "generate", "evaluate"), unknown),
        "report": ExpectedCost(cpu_s=2.0, size_bytes=PAGE_BYTES),
    }
    if train.backbone.name != MEASURED:
        return found
    size = recipe.dataset.video.width * recipe.dataset.video.height
    frames = max(max(pyramid.frames) for pyramid in recipe.dataset.pyramid)
    clips = train.steps * train.batch_size * train.accumulation
    settings = recipe.evaluate
    shown = (settings.width or 64) * (settings.height or 64) * (settings.frames or TOY_FRAMES) / PIXELS
    return found | {
        "train": ExpectedCost(
            cpu_s=LOAD_S + clips * TRAIN_S_PER_CLIP * size * frames / PIXELS,
            size_bytes=ADAPTER_BYTES * (1 + 3 * train.checkpoints.keep),  # a checkpoint has the moments of every weight
        ),
        "generate": ExpectedCost(
            cpu_s=LOAD_S + videos * (settings.steps or TOY_STEPS) * SAMPLE_S_PER_STEP * shown, size_bytes=videos * VIDEO_BYTES
        ),
        "evaluate": ExpectedCost(
            cpu_s=LOAD_S + (videos * READ_S_PER_VIDEO + expected_fep_videos(recipe) * FEP_S_PER_VIDEO) * shown
        ),
    }


def expected_videos(recipe: RunRecipe) -> int:
    """Return how many videos an evaluation makes at most; an arm without control makes one for each prompt and seed."""
    settings = recipe.evaluate
    controls = len(parse_controls(settings.controls))
    arms = expected_arms(settings, recipe.tree)
    each = sum(controls if mode in CONTROLLED else 1 for mode in arms) + 2 * settings.text_baseline  # fewer and more words
    return sum(_prompts(settings, axis) for axis in _axes(recipe)) * settings.seeds * each


def expected_arms(settings: EvaluateSettings, tree: dict[str, object]) -> tuple[str, ...]:
    """Return the modes that are compared: the adapter's own and the clean backbone are always among them."""
    train = tree.get("train")
    adapter = train.get("adapter") if isinstance(train, dict) else None
    alone = isinstance(adapter, dict) and adapter.get("arm") == "adapter_only"
    given = [mode for mode in settings.modes if not alone or mode in WITHOUT_LORA]
    return tuple(dict.fromkeys(["control_only" if alone else "decoupled", *given, "backbone_only"]))


def _axes(recipe: RunRecipe) -> tuple[str, ...]:
    return recipe.evaluate.axes or recipe.dataset.used_axes


def _prompts(settings: EvaluateSettings, axis: str) -> int:
    given = settings.axis_prompts.get(axis, settings.prompts)
    return min(len(given), settings.prompts_count) if given else settings.prompts_count


def expected_fep_videos(recipe: RunRecipe) -> int:
    """Return how many videos are made in one denoising step."""
    settings = recipe.evaluate
    if not settings.fep:
        return 0
    each = [_prompts(settings, axis) for axis in _axes(recipe)]
    prompts = sum(each) if settings.axis_prompts else max(each)
    arms = len(expected_arms(settings, recipe.tree)) + settings.text_baseline + 1
    return prompts * settings.seeds * (arms + 2)  # and drift at two checkpoints
