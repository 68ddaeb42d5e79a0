"""Puts a run's callbacks on its loop: metric log, trackers and progress, validation, previews."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from trainer.backbones.load import load_component
from trainer.data.encoding import EncodedReader
from trainer.generation.sampler import generation_of
from trainer.methods import METHODS
from trainer.training.callbacks import PreviewPipeline, make_callbacks, make_metrics_log
from trainer.training.loop import Loop
from trainer.training.setup import PreparedRun, autocast_dtype


def watch(loop: Loop, run: PreparedRun, folder: Path, stream: TextIO) -> None:
    """Let a run's callbacks watch its loop: metric log, trackers and progress, validation, previews. For the first process."""
    opened, settings = run.opened, run.opened.settings
    callbacks = make_callbacks(
        make_metrics_log(folder, settings, stream),
        settings,
        folder,
        held_out=opened.data.validation,
        axes=[axis.name for axis in opened.axes],
        pipeline=None if run.reader is None else _preview_pipeline(run, run.reader),
        averaged=lambda: loop.average,
    )
    loop.watch(*callbacks)


def _preview_pipeline(run: PreparedRun, reader: EncodedReader) -> PreviewPipeline:
    """Return what previews are made with: the parts under training, and an autoencoder loaded again where it was dropped."""
    pipe, backbone = run.opened.pipe, run.opened.settings.backbone

    def text_now(caption: str) -> Tensor:  # of a text encoder that trains: nothing that is cached is true of it
        return pipe.encode_prompt(caption, do_classifier_free_guidance=False, max_sequence_length=backbone.text_max_length)[0][
            0
        ]

    def vae() -> AutoencoderKLWan:
        if pipe.vae is not None:
            return pipe.vae
        return load_component(AutoencoderKLWan, backbone.name, "vae", dtype=torch.float32)

    return PreviewPipeline(
        pipe=pipe,
        adapters=run.task.adapters,
        embed=text_now if backbone.train_text_encoder else reader.text,
        vae=vae,
        sample=generation_of(METHODS[run.opened.settings.method]).sample,
        autocast=autocast_dtype(run.opened),
    )
