"""Which sizes and lengths of video a backbone takes, known from its name or its configuration files: no weight, no network.

A recipe that trains is held against it before anything is rendered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from scenes.errors import InputError

DEFAULT_BACKBONE = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"  # of `train.backbone.name`


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Width and height (pixels) are multiples of these (autoencoder times patch); frames are `frames` n + 1."""

    width: int
    height: int
    frames: int

    def check(self, *, width: int, height: int, frames: int) -> None:
        """Raise InputError, naming the nearest size, for one that the backbone cannot take; diffusers would round it."""
        if height < self.height or width < self.width or height % self.height or width % self.width:
            near = (max(1, round(side / step)) * step for side, step in ((width, self.width), (height, self.height)))
            raise InputError(
                f"size {width}x{height} does not fit this backbone; width must be a multiple of {self.width}, height of "
                f"{self.height}, the nearest is {'x'.join(map(str, near))}"
            )
        step = self.frames
        if frames < 1 or frames % step != 1 % step:
            raise InputError(
                f"{frames} frames do not fit this backbone; give {step}n + 1, such as 1, {step + 1} or {2 * step + 1}, "
                f"the nearest is {max(0, round((frames - 1) / step)) * step + 1}"
            )


LEAST = Grid(width=8, height=8, frames=1)  # of a backbone that is not known: no autoencoder of Wan's kind has a finer grid
GRIDS: Mapping[str, Grid] = MappingProxyType(
    {
        "tiny": Grid(width=16, height=16, frames=2),
        "tiny-random": Grid(width=16, height=16, frames=4),
        "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": Grid(width=16, height=16, frames=4),
        "Wan-AI/Wan2.1-T2V-14B-Diffusers": Grid(width=16, height=16, frames=4),
        "Wan-AI/Wan2.2-T2V-A14B-Diffusers": Grid(width=16, height=16, frames=4),
        "Wan-AI/Wan2.2-TI2V-5B-Diffusers": Grid(width=32, height=32, frames=4),
    }
)


def backbone_grid(name: str) -> Grid | None:
    """Return the grid of a backbone by its name or folder; None where only its repository could tell."""
    known = GRIDS.get(name.split(":")[0] if name.startswith("tiny-random:") else name.split("@")[0])
    return known if known is not None else _of_folder(Path(name).expanduser())


def _of_folder(folder: Path) -> Grid | None:
    """Return the grid that a pipeline's configuration files describe; None where there are none, or others than Wan's."""
    parts = [part for part in ("transformer", "transformer_2") if (folder / part / "config.json").is_file()]
    try:
        transformer, autoencoder = (_config(folder / part) for part in (parts[0], "vae"))
        _, rows, columns = transformer.get("patch_size", (1, 2, 2))
        space, time = autoencoder.get("scale_factor_spatial", 8), autoencoder.get("scale_factor_temporal", 4)
        steps = (space * columns, space * rows, time)
    except (OSError, ValueError, TypeError, AttributeError, IndexError):
        return None  # what is wrong with the folder is said where it is loaded
    if not all(isinstance(step, int) and step > 0 for step in steps):
        return None
    return Grid(width=steps[0], height=steps[1], frames=steps[2])


def _config(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
