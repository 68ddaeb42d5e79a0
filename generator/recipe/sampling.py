"""Which control values a scene is rendered at: the pyramid's stratified draws, and the modes it is compared with.

Every draw is keyed by what it is (seed, family, layer, frames, scene, axis), never by order, so that adding a layer, a scene
or an axis leaves all other draws as they were (DESIGN law 1).
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence
from typing import Literal

import numpy as np

Sampling = Literal["pyramid", "even", "uniform", "grid"]

CONTENT = "content"
CAPTION = "caption"
CONTROL = "control"
PAIRING = "pairing"


def stream(seed: int, purpose: str, name: str, *key: int) -> np.random.Generator:
    """Return the random generator of one purpose (`content`, `control` …), one name (family or axis) and one key."""
    words = (zlib.crc32(purpose.encode()), zlib.crc32(name.encode()))
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(*words, *key))))


def stratified(rng: np.random.Generator, count: int) -> list[float]:
    """Return `count` ascending values: [-1, 1] cut into equal bins, one uniform draw per bin (DESIGN section 2)."""
    return [float(-1.0 + 2.0 * (index + rng.random()) / count) for index in range(count)]


def even(count: int) -> list[float]:
    """Return `count` evenly spaced values from -1 to 1, both included; a single value is 0."""
    return [0.0] if count == 1 else [float(value) for value in np.linspace(-1.0, 1.0, count)]


def _axis_values(sampling: Sampling, rng: np.random.Generator, count: int) -> list[float]:
    if sampling == "pyramid":
        return stratified(rng, count)
    if sampling == "uniform":
        return sorted(float(value) for value in rng.uniform(-1.0, 1.0, count))
    return even(count)


def clips_per_scene(sampling: Sampling, layer: int, axis_count: int, *, anchor: bool = False) -> int:
    """Return how many clips a scene of a layer has: N, or N to the number of axes for the full grid, and its anchor.

    Where a clip with every axis at 0 is drawn anyway, it is the anchor.
    """
    drawn = layer**axis_count if sampling == "grid" else layer
    return drawn + (anchor and not _draws_neutral(sampling, layer, axis_count))


def _draws_neutral(sampling: Sampling, layer: int, axis_count: int) -> bool:
    """Whether a scene has a clip with every axis at exactly 0 without an anchor: evenly spaced values of an odd number do."""
    return layer % 2 == 1 and (sampling == "grid" or (sampling == "even" and (axis_count == 1 or layer == 1)))


def control_values(
    sampling: Sampling,
    axes: Sequence[str],
    *,
    seed: int,
    family: str,
    layer: int,
    frames: int,
    scene: int,
    anchor: bool = False,
) -> list[dict[str, float]]:
    """Return the controls of one scene's clips, in order: one dict of axis name to control per clip.

    With one axis the values ascend. With several, each axis is sampled on its own; they are paired at random as a Latin
    hypercube (`pyramid`, `even`, `uniform`) or crossed (`grid`). The first axis keeps its ascending order. An anchor, every
    axis at 0, comes last, so that the others are numbered as they are without it.
    """
    last = [dict.fromkeys(axes, 0.0)] if anchor and not _draws_neutral(sampling, layer, len(axes)) else []
    family_word = zlib.crc32(family.encode())
    key = (family_word, layer, frames, scene)
    columns = [_axis_values(sampling, stream(seed, CONTROL, axis, *key), layer) for axis in axes]
    if sampling == "grid":
        return [dict(zip(axes, combination, strict=True)) for combination in itertools.product(*columns)] + last
    for position in range(1, len(columns)):
        order = stream(seed, PAIRING, axes[position], *key).permutation(layer)
        columns[position] = [columns[position][int(index)] for index in order]
    return [dict(zip(axes, combination, strict=True)) for combination in zip(*columns, strict=True)] + last
