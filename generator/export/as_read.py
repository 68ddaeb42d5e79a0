"""What a trainer makes of clips whose size or frame rate is not its model's, worked out and said before it is started.

Wan's autoencoder and patches take sizes in multiples of 16 and 4n+1 frames; it was trained at 16 frames a second.
"""

from __future__ import annotations

from collections.abc import Iterator

from generator.export.base import ExportJob

MODEL_FPS = 16
SIZE_STEP = 16


def fitting_size(width: int, height: int) -> tuple[int, int]:
    """Return the size (pixels) in multiples of 16 that is nearest to one."""
    return _nearest(width), _nearest(height)


def _nearest(side_px: int) -> int:
    return max(SIZE_STEP, round(side_px / SIZE_STEP) * SIZE_STEP)


def size_notes(job: ExportJob) -> Iterator[str]:
    """Yield a line for every size that a model cannot take as it is."""
    for width, height in job.shapes:
        fitting = fitting_size(width, height)
        if fitting != (width, height):
            yield (
                f"{width}x{height} is no multiple of {SIZE_STEP} pixels, which models take: clips are resized to about "
                f"{fitting[0]}x{fitting[1]}, and blur lengths with them; render at that size to keep every pixel"
            )


def speed_notes(job: ExportJob) -> Iterator[str]:
    """Yield a line where frames are taken one by one whatever their rate is."""
    for fps in sorted({row["fps"] for row in job.rows if row["frames"] > 1} - {MODEL_FPS}):
        yield (
            f"clips run at {fps} frames a second and models at {MODEL_FPS}: this trainer takes the frames as they are, so that "
            f"things move at {MODEL_FPS / fps:.2g} of their speed; exposures are still those of the labels"
        )


def notes(job: ExportJob) -> tuple[str, ...]:
    """Return what a reader does that takes frames as they are and resizes pictures."""
    return (*size_notes(job), *speed_notes(job))


def resampled_frames(frames: int, fps: int) -> int:
    """Return how many frames diffusion-pipe makes of so many: at the model's rate, rounded down, then down to 4n+1.

    Before August 2026, and in the method's research code, it takes the duration in hundredths of a second for that.
    """
    hundredths = frames * 100 // fps
    return (min(frames * MODEL_FPS // fps, MODEL_FPS * hundredths // 100) - 1) // 4 * 4 + 1
