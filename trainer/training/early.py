"""What can be refused before anything is encoded, and in a dry run: what settings, labels and a backbone's sizes decide."""

from __future__ import annotations

from diffusers import WanPipeline

from scenes.errors import InputError
from trainer.backbones.load import experts
from trainer.config.train import TrainSettings
from trainer.data.records import TrainingData
from trainer.pipelines.controlled_wan import check_size
from trainer.training.callbacks import check_trackers, preview_prompts
from trainer.training.optimizers import check_optimizer


def check_early(settings: TrainSettings, data: TrainingData, pipe: WanPipeline) -> None:
    """Raise InputError in one line for what would end a run later.

    That is a tracker or optimizer that is not installed, previews that the backbone cannot make or that have no prompt, more
    blocks to swap than there are. `pipe` may have no weights (`trainer.backbones.weightless`).
    """
    check_trackers(settings.trackers)
    check_optimizer(settings.optimizer)
    if settings.previews.every:
        _check_previews(settings, data, pipe)
    layers = min(part.config.num_layers for part in experts(pipe).values())
    if settings.backbone.blocks_to_swap > layers:
        raise InputError(
            f"train.backbone.blocks_to_swap = {settings.backbone.blocks_to_swap}, and this backbone has {layers} blocks; give "
            f"0 to {layers}"
        )


def _check_previews(settings: TrainSettings, data: TrainingData, pipe: WanPipeline) -> None:
    own = settings.previews
    try:
        check_size(pipe, height=own.height, width=own.width, num_frames=own.frames)
    except InputError as error:
        raise InputError(f"train.previews: {error}") from None
    if not preview_prompts(own, data.validation, [axis.name for axis in data.axes]):
        raise InputError("previews have no prompt and no clip is held out to take one from; set train.previews.prompts")
    blank = next((prompt for prompt in own.prompts if not prompt.strip()), None)
    if blank is not None:
        raise InputError(f"train.previews.prompts has one without words ({blank!r}); remove it")
