"""Published numbers of the full-size method, which stand beside ours as context: another model, other data, other features."""

from __future__ import annotations

from trainer.evaluation.results import PublishedNumber

MODEL = "Wan2.1-T2V-14B, CLIP features"
SOURCE = "arXiv 2511.17844"

PUBLISHED: tuple[PublishedNumber, ...] = tuple(
    PublishedNumber(
        model=MODEL, source=SOURCE, metric=metric, axis=axis, full_lora=full_lora, decoupled=decoupled, noise_floor=noise_floor
    )
    for metric, axis, full_lora, decoupled, noise_floor in (
        ("SSF", "shutter", 0.949, 0.984, 0.953),
        ("SSF", "aperture", 0.890, 0.963, 0.953),
        ("SSF", "temperature", 0.921, 0.976, 0.953),
        ("SS-FD", "shutter", 8.0, 2.8, 6.2),
        ("SS-FD", "aperture", 24.4, 7.7, 6.2),
        ("SS-FD", "temperature", 13.5, 4.7, 6.2),
    )
)
