"""What decides the clips to learn from, as a hash: what is held out and what previews show are no part of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from trainer.data.records import TrainingData


def clips_digest(data: TrainingData, latents: Mapping[str, str], texts: Mapping[str, str]) -> str:
    """Return how many clips there are to learn from, and a hash of all of them that a step can depend on, in their order.

    `latents` and `texts` are cache keys by frames and by caption; they name the encoders, too.
    """
    digest = hashlib.sha256(repr([(axis.name, axis.law) for axis in data.axes]).encode())
    for record in data.train:
        encoded = (latents.get(record.frames_sha256), texts.get(record.caption))
        digest.update(repr((record, *encoded)).encode() + b"\n")
    digest.update(repr(texts.get("")).encode())
    return f"{len(data.train)} clips, {digest.hexdigest()[:32]}"
