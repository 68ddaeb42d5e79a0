"""A dataset's version as training data: records of clips, buckets of equal size, frames and cached encodings.

Not here: reading a dataset in general, which is `generator.Dataset`.
"""

from __future__ import annotations

from trainer.data.buckets import BucketSampler
from trainer.data.records import TrainingClip, TrainingData, check_sizes, open_data

__all__ = ["BucketSampler", "TrainingClip", "TrainingData", "check_sizes", "open_data"]
