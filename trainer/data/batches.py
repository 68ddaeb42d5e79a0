"""Batches of encoded clips for the flow objective: latents, text and controls by name.

Shapes: B clips, C latent channels, t h w latent frames, rows and columns; L text tokens, X text width; A axes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from trainer.data.batch import Batch
from trainer.data.buckets import BucketSampler
from trainer.data.encoding import EncodedReader
from trainer.data.records import TrainingClip

LATENTS, TEXT, CONTROLS_NAME = "latents", "text", "controls"
SCENES = "scenes"  # [B], for each clip the place of the first clip of its scene; only where scenes are kept together


class FlowBatches:
    """The micro-batches of a training run over encoded clips, and any other batch of them."""

    def __init__(
        self,
        records: Sequence[TrainingClip],
        reader: EncodedReader,
        *,
        batch_size: int,
        seed: int,
        text: Callable[[str], Tensor] | None = None,
        clips_per_scene: int = 1,
    ) -> None:
        """`text` gives what stands for a caption in a batch: its embedding in the reader, or token ids for a text encoder."""
        self.records = tuple(records)
        self.reader = reader
        self.text = text or reader.text
        self.clips_per_scene = clips_per_scene
        self.sampler = BucketSampler(
            [record.shape for record in self.records],
            batch_size,
            seed,
            scenes=[record.scene_id for record in self.records],
            together=clips_per_scene,
        )

    def micro_batch(self, micro_step: int, rank: int, ranks: int) -> Batch:
        """Return the batch of a micro-step for one of `ranks` processes: a pure function of these and the seed."""
        return self.batch([self.records[place] for place in self.sampler.micro_batch(micro_step, rank, ranks)])

    def batch(self, records: Sequence[TrainingClip]) -> Batch:
        """Return clips of one shape as a batch: latents [B, C, t, h, w], text [B, L, X], controls [B, A]."""
        tensors = {
            LATENTS: torch.stack([self.reader.latents(record) for record in records]),
            TEXT: torch.stack([self.text(record.caption) for record in records]),
            CONTROLS_NAME: torch.tensor([record.controls for record in records], dtype=torch.float32),
        }
        if self.clips_per_scene > 1:
            scenes = [record.scene_id for record in records]
            tensors[SCENES] = torch.tensor([scenes.index(scene) for scene in scenes])
        return Batch(clip_ids=tuple(record.clip_id for record in records), tensors=tensors)

    def empty_text(self) -> Tensor:
        """Return what stands for the empty caption, [L, X], which guidance contrasts with."""
        return self.text("")
