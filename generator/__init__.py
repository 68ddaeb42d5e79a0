"""From a recipe to a verified, versioned dataset; `Dataset` reads one.

Not here: axes, scenes and probes (`scenes/`), and anything that trains (`trainer/`).

from generator import Dataset

train = Dataset.open("datasets/demo", "latest").split("train")
for clip in train.shuffled(seed=0):
    frames_THW3, exposure_s = clip.frames(), clip["shutter_exposure_s"]
"""

from __future__ import annotations

from typing import Any

__distribution__ = "stopdown"  # the command refuses packages of other programs
__all__ = ["Dataset"]


def __getattr__(name: str) -> Any:
    """Import the reader only when it is asked for: commands must start without pyarrow and PyAV."""
    if name == "Dataset":
        from generator.versions.reading.dataset import Dataset

        return Dataset
    raise AttributeError(f"module 'generator' has no attribute '{name}'")
