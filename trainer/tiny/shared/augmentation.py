"""Clips turned round and their captions with them: mirrored across, and played backwards.

Everything in the world moves steadily, so a clip played backwards is as true as the clip; places are said of its middle.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Kind = TypeVar("Kind", bound=np.generic)

_ACROSS = {"left": "right", "right": "left"}
_BACK = {
    "from left to right": "from right to left",
    "from right to left": "from left to right",
    "towards the upper right": "towards the lower left",
    "towards the lower left": "towards the upper right",
    "towards the upper left": "towards the lower right",
    "towards the lower right": "towards the upper left",
    "upwards": "downwards",
    "downwards": "upwards",
    "towards the camera": "away from the camera",
    "away from the camera": "towards the camera",
}


@dataclass(frozen=True)
class Turn:
    """One of the four ways to turn a clip round; the first leaves it as it is."""

    mirrored: bool
    reversed: bool

    def frames(self, frames_THW3: NDArray[Kind]) -> NDArray[Kind]:
        """Return the turned frames, or anything else by time, row and column [T, H, W, ...]: a view."""
        return frames_THW3[:: -1 if self.reversed else 1, :, :: -1 if self.mirrored else 1]

    def caption(self, text: str) -> str:
        """Return the caption of the turned frames."""
        text = _swap(text, _ACROSS) if self.mirrored else text
        return _swap(text, _BACK) if self.reversed else text


TURNS = (Turn(False, False), Turn(True, False), Turn(False, True), Turn(True, True))


def _swap(text: str, words: Mapping[str, str]) -> str:
    pattern = "|".join(rf"\b{re.escape(word)}\b" for word in sorted(words, key=len, reverse=True))
    return re.sub(pattern, lambda found: words[found[0]], text)
