"""Batches of decoded frames for training an autoencoder: crops of clips in time, and stills.

Shapes: B clips, T frames, H rows, W columns, 3 channels (RGB, uint8).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from scenes.errors import InputError
from trainer.data.batch import Batch
from trainer.data.buckets import BucketSampler
from trainer.data.records import TrainingClip, TrainingData

FRAMES = "frames"
_CROPS = 2  # a random stream beside those of the sampler


class FrameBatches:
    """The micro-batches of a run over frames: each of one length out of `lengths`, cut at a random place of every clip.

    A batch's length is drawn among those that its clips reach, with equal chances; 1 is a still. Decoded clips that fit in
    `memory_bytes` are kept.
    """

    def __init__(
        self,
        data: TrainingData,
        records: Sequence[TrainingClip],
        *,
        batch_size: int,
        seed: int,
        lengths: Sequence[int] = (1, 5, 9),
        memory_bytes: int = 1024**3,
    ) -> None:
        check_lengths(lengths, records)
        self.data = data
        self.records = tuple(records)
        self.lengths = tuple(sorted(set(lengths)))
        self.sampler = BucketSampler([record.shape for record in self.records], batch_size, seed)
        self._free = memory_bytes
        self._kept: dict[str, NDArray[np.uint8]] = {}

    def micro_batch(self, micro_step: int, rank: int, ranks: int) -> Batch:
        """Return the batch of a micro-step for one of `ranks` processes: a pure function of these and the seed."""
        number = micro_step * ranks + rank
        chosen = [self.records[place] for place in self.sampler.batch(number)]
        rng = np.random.default_rng([self.sampler.seed, _CROPS, number])
        length = int(rng.choice([count for count in self.lengths if count <= chosen[0].frames]))
        starts = rng.integers(0, chosen[0].frames - length + 1, len(chosen))
        return self.batch(chosen, length, starts.tolist())

    def batch(self, records: Sequence[TrainingClip], length: int, starts: Sequence[int]) -> Batch:
        """Return crops [B, T, H, W, 3] of clips of one shape, `length` frames from each start on."""
        crops = [self._frames(record)[start : start + length] for record, start in zip(records, starts, strict=True)]
        return Batch(clip_ids=tuple(record.clip_id for record in records), tensors={FRAMES: torch.from_numpy(np.stack(crops))})

    def _frames(self, record: TrainingClip) -> NDArray[np.uint8]:
        if record.clip_id in self._kept:
            return self._kept[record.clip_id]
        frames_THW3 = self.data.frames(record)
        if frames_THW3.nbytes <= self._free:
            self._free -= frames_THW3.nbytes
            self._kept[record.clip_id] = frames_THW3
        return frames_THW3


def check_lengths(lengths: Sequence[int], records: Sequence[TrainingClip]) -> None:
    """Raise InputError for lengths of crops of which a clip reaches none."""
    shortest = min((record.frames for record in records), default=1)
    if not lengths or min(lengths) < 1 or min(lengths) > shortest:
        raise InputError(f"lengths {list(lengths)} leave no crop of a clip of {shortest} frames; give 1 or one it reaches")
