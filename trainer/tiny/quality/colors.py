"""Whether things have the colours that a caption names, under any cast: the named backdrop tells what the light does.

Shapes: N pixels, T frames, H rows, W columns, 3 channels (RGB, scene-linear).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scenes.arrays import Bytes
from scenes.palette import BACKGROUNDS, COLORS, NEUTRALS, lab, srgb_decode
from trainer.tiny.quality.found import parts_of, thing_masks
from trainer.tiny.quality.recogniser import named_things, picked

HUE_RAD, LEAST_CHROMA = math.radians(35), 12.0


def color_is(thing_N3: NDArray[np.float64], backdrop_N3: NDArray[np.float64], background: str, color: str) -> bool:
    """Return whether a thing's pixels have a colour's hue where the backdrop's pixels are those of a named one."""
    backdrop = BACKGROUNDS[background]
    named_3 = (np.asarray(backdrop.bottom) + np.asarray(backdrop.top)) / 2
    seen_3 = np.median(backdrop_N3, axis=0)
    gain_3 = seen_3 / seen_3.mean() / (named_3 / named_3.mean())
    wanted, found = lab(COLORS[color]), lab(np.median(thing_N3, axis=0) / np.maximum(gain_3, 1e-3))
    if math.hypot(found[1], found[2]) < LEAST_CHROMA:
        return False
    turn = math.atan2(found[2], found[1]) - math.atan2(wanted[2], wanted[1])
    return abs((turn + math.pi) % (2 * math.pi) - math.pi) < HUE_RAD


def linear_light(frames_THW3: Bytes) -> NDArray[np.float64]:
    """Return frames in scene-linear light, as floats of [0, 1]."""
    return np.asarray(srgb_decode(frames_THW3.astype(np.float64) / 255))


def both_colors(video_THW3: Bytes, caption: str) -> bool | None:
    """Return whether two things are there, one of each named colour, in most of the frames looked at.

    None where the caption names no two things of a hue, or no backdrop.
    """
    colors = [thing.color for thing in named_things(caption)]
    backgrounds = [name for name in BACKGROUNDS if f"{name} back" in caption.lower()]
    if len(colors) != 2 or len(backgrounds) != 1 or set(colors) & set(NEUTRALS):
        return None
    linear, masks = linear_light(video_THW3), thing_masks(video_THW3)
    hits = []
    for frame in picked(video_THW3):
        parts = [linear[frame][where] for _, where in parts_of(masks[frame])[:2]]
        behind = linear[frame][~masks[frame]]
        hits.append(len(parts) == 2 and len(behind) > 0 and _in_some_order(parts, behind, backgrounds[0], colors))
    return bool(np.mean(hits) > 0.5)


def _in_some_order(
    parts: Sequence[NDArray[np.float64]], behind_N3: NDArray[np.float64], background: str, colors: Sequence[str]
) -> bool:
    one, other = ([color_is(part, behind_N3, background, color) for color in colors] for part in parts)
    return (one[0] and other[1]) or (one[1] and other[0])
