"""Splits by scene: train, validation and test, drawn from the scene's id alone, so that growth moves no clip.

The leak check verifies that no scene, and no near-identical first frame, stands in two splits.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import model_validator

from scenes.spec import Spec

SPLITS = ("train", "validation", "test")
HASH_SIDE = 16  # a hash has 2 * 16 * 16 bits: horizontal and vertical differences
NEAR_BITS = 26  # of 512; the same picture encoded twice differs in a few, other scenes in more
NEAR_LEVELS = 4.0  # of 255, mean absolute difference of 16x16 thumbnails; plain backgrounds alone make near hashes


class SplitRatios(Spec):
    """The share of scenes in each split; they sum to 1."""

    train: float = 0.8
    validation: float = 0.1
    test: float = 0.1

    @model_validator(mode="after")
    def _sum_to_one(self) -> SplitRatios:
        parts = (self.train, self.validation, self.test)
        if min(parts) < 0 or not math.isclose(sum(parts), 1.0, abs_tol=1e-9):
            raise ValueError(f"shares {parts} must be at least 0 and sum to 1")
        return self


def split_of(scene_id: str, ratios: SplitRatios) -> str:
    """Return the split of a scene: a uniform draw from the sha256 of its id, cut by the ratios."""
    draw = int.from_bytes(hashlib.sha256(f"split {scene_id}".encode()).digest()[:8], "big") / 2.0**64
    if draw < ratios.train:
        return "train"
    return "validation" if draw < ratios.train + ratios.validation else "test"


@dataclass(frozen=True, kw_only=True)
class Leak:
    """Two clips of different splits that show the same thing; `reason` says how that was seen."""

    clip_ids: tuple[str, str]
    splits: tuple[str, str]
    reason: str


def scene_leaks(clips: Sequence[Mapping[str, str]]) -> list[Leak]:
    """Return the scenes that stand in two splits; each clip gives clip_id, scene_id and split."""
    first: dict[str, Mapping[str, str]] = {}
    leaks = []
    for clip in clips:
        other = first.setdefault(clip["scene_id"], clip)
        if other["split"] != clip["split"]:
            leaks.append(_leak(other, clip, f"both are of scene {clip['scene_id']}"))
    return leaks


def frame_leaks(clips: Sequence[Mapping[str, str]], first_frame: Callable[[str], NDArray[np.uint8]]) -> list[Leak]:
    """Return pairs across splits whose first frames are near-identical.

    `first_frame` gives a clip's first frame by id, sRGB uint8 `[H, W, 3]`. A pair needs near perceptual hashes
    (difference hash, N. Krawetz 2013, both directions) and near thumbnails.
    """
    if len({clip["split"] for clip in clips}) < 2:
        return []
    looks = [perceptual_hash(first_frame(clip["clip_id"])) for clip in clips]
    bits_NB = np.stack([bits for bits, _ in looks])
    small_NP = np.stack([small for _, small in looks])
    split_N = np.array([clip["split"] for clip in clips])
    return [
        _leak(clips[i], clips[j], f"first frames differ by {distance} of {bits_NB.shape[1]} hash bits")
        for i, j, distance in _near_pairs(bits_NB, small_NP, split_N)
    ]


def perceptual_hash(frame_HW3: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Return a frame's difference hash (bool `[512]`) and its thumbnail (float32 `[768]`, levels of 255)."""
    image = Image.fromarray(frame_HW3)
    side = HASH_SIDE + 1
    grey = np.asarray(image.convert("L").resize((side, side), Image.Resampling.BOX), dtype=np.int16)
    # One level of slack: without it noise decides every bit of a plain background.
    across, down = grey[:-1, 1:] > grey[:-1, :-1] + 1, grey[1:, :-1] > grey[:-1, :-1] + 1
    small = np.asarray(image.resize((HASH_SIDE, HASH_SIDE), Image.Resampling.BOX), dtype=np.float32)
    return np.concatenate([across.ravel(), down.ravel()]), small.ravel()


def _near_pairs(
    bits_NB: NDArray[np.bool_], small_NP: NDArray[np.float32], split_N: NDArray[np.str_]
) -> Iterator[tuple[int, int, int]]:
    signed_NB = bits_NB.astype(np.float32) * 2 - 1
    for i in range(len(bits_NB) - 1):
        later = np.arange(i + 1, len(bits_NB))
        later = later[split_N[later] != split_N[i]]
        distance = (bits_NB.shape[1] - signed_NB[later] @ signed_NB[i]) / 2
        for j, bits in zip(later[distance <= NEAR_BITS], distance[distance <= NEAR_BITS], strict=True):
            if float(np.abs(small_NP[i] - small_NP[j]).mean()) <= NEAR_LEVELS:
                yield i, int(j), int(bits)


def _leak(one: Mapping[str, str], other: Mapping[str, str], reason: str) -> Leak:
    return Leak(clip_ids=(one["clip_id"], other["clip_id"]), splits=(one["split"], other["split"]), reason=reason)
