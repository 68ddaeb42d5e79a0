"""How alike the content of two videos is, apart from what a camera control may change; and temporal flicker.

Array legend: T frames, H rows, W columns, 3 channels (sRGB, uint8); R, C rows and columns of blocks.

"Outside the effect", in the simplest sound form: both videos are brought to a small size (which removes most of a difference
in blur), one gain for each channel is taken out (which removes a cast and a difference in exposure), and each block of the
reference is sought within a small reach in the other video (which removes a small shift of what moves). Blocks in which
either video moves are left out, because motion blur is an effect; so is a band of blurred edges at this size. What is left is
the mean absolute difference of the best match, in 8-bit levels. It still holds defocus that is wider than the small size's
pixels, so that for aperture it is an upper bound.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scenes.arrays import Bytes, Floats

SMALL_PX = 48  # the longer side that videos are compared at
BLOCK_PX = 8
REACH_PX = 2
MOVES_LEVELS = 8.0  # change of a block's mean luma over time above which something moves in it
LUMA = np.array([0.2126, 0.7152, 0.0722])


def outside_difference(video_THW3: Bytes, reference_THW3: Bytes) -> float | None:
    """Return the mean absolute difference of still content after gain and shift, in 8-bit levels.

    None where every block moves, or where the videos differ in size. Frames are compared one by one, as many as both have.
    """
    if video_THW3.shape[1:] != reference_THW3.shape[1:]:
        return None
    count = min(len(video_THW3), len(reference_THW3))
    ours, theirs = (small(frames[:count]) for frames in (video_THW3, reference_THW3))
    still_RC = ~(moving_blocks(ours) | moving_blocks(theirs))
    if not still_RC.any():
        return None
    matched = _gained(ours, theirs)
    residuals = [_block_residual(one, other) for one, other in zip(matched, theirs, strict=True)]
    return float(np.mean([residual_RC[still_RC].mean() for residual_RC in residuals]))


def flicker(video_THW3: Bytes) -> float | None:
    """Return the mean absolute second difference of the frames' mean luma, in 8-bit levels; None below three frames.

    A steady change of brightness, as of something bright that passes, is no flicker.
    """
    if len(video_THW3) < 3:
        return None
    luma_T = (video_THW3.reshape(len(video_THW3), -1, 3).mean(axis=1)) @ LUMA
    return float(np.abs(np.diff(luma_T, n=2)).mean())


def small(frames_THW3: Bytes) -> Floats:
    """Return frames with a longer side of `SMALL_PX` at most, area-averaged, sides rounded down to whole blocks."""
    height, width = frames_THW3.shape[1:3]
    factor = min(1.0, SMALL_PX / max(height, width))
    size = [max(BLOCK_PX, int(side * factor) // BLOCK_PX * BLOCK_PX) for side in (width, height)]
    scaled = [np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX)) for frame in frames_THW3]
    return np.stack(scaled).astype(np.float64)


def moving_blocks(frames_THW3: Floats) -> NDArray[np.bool_]:
    """Return which blocks [R, C] change over time, or lie beside one that does: blur reaches over a block's edge."""
    luma_THW = frames_THW3 @ LUMA
    means_TRC = _blocks(luma_THW).mean(axis=(-1, -2))
    moves_RC = np.ptp(means_TRC, axis=0) > MOVES_LEVELS
    padded = np.pad(moves_RC, 1)
    rows, columns = moves_RC.shape
    shifts = [padded[y : y + rows, x : x + columns] for y in range(3) for x in range(3)]
    return np.logical_or.reduce(shifts)


def _gained(ours_THW3: Floats, theirs_THW3: Floats) -> Floats:
    """Return our frames with the gain per channel that fits theirs best in linear light."""
    ours, theirs = (np.power(frames / 255.0, 2.2) for frames in (ours_THW3, theirs_THW3))
    over, under = (ours * theirs).sum(axis=(0, 1, 2)), np.square(ours).sum(axis=(0, 1, 2))
    gain_3 = np.where(under > 0, over / np.maximum(under, 1e-12), 1.0)
    return 255.0 * np.power(np.clip(ours * gain_3, 0.0, 1.0), 1 / 2.2)


def _block_residual(ours_HW3: Floats, theirs_HW3: Floats) -> Floats:
    """Return, per block of the reference [R, C], the smallest mean absolute difference over shifts within reach."""
    height, width = theirs_HW3.shape[:2]
    padded = np.pad(ours_HW3, ((REACH_PX, REACH_PX), (REACH_PX, REACH_PX), (0, 0)), mode="edge")
    shifts = [(y, x) for y in range(2 * REACH_PX + 1) for x in range(2 * REACH_PX + 1)]
    apart = [np.abs(padded[y : y + height, x : x + width] - theirs_HW3).mean(axis=-1) for y, x in shifts]
    return np.min([_blocks(one).mean(axis=(-1, -2)) for one in apart], axis=0)


def _blocks(plane_HW: Floats) -> Floats:
    """Return [..., H, W] as blocks [..., R, C, BLOCK_PX, BLOCK_PX]."""
    *lead, height, width = plane_HW.shape
    cut = plane_HW.reshape(*lead, height // BLOCK_PX, BLOCK_PX, width // BLOCK_PX, BLOCK_PX)
    return np.moveaxis(cut, -3, -2)
