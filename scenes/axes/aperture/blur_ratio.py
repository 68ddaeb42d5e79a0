"""How much wider the aperture is in one clip than in another of the same content: ratios of blur, spot by spot or edge by edge.

Blur is proportional to the lens's opening, so the ratio of two blurs of the same thing is the ratio of f-numbers whatever
the distances. Between two clips it also shows which of a spot's two widths is the lens's: the one that changes.

Array legend: T frames, H rows, W columns, 3 channels; P pixels on edges; N votes;
S scales of smoothing, K disc diameters, M places across a disc.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy import ndimage

from scenes.arrays import Bytes, Floats
from scenes.axes.aperture.disc_profile import PIXEL_BLUR_PX
from scenes.axes.aperture.probe import LUMA_3, Spot, find_spots
from scenes.palette import srgb_decode

LEAST_PX = 1.0
MOST_WEIGHT_PX = 12.0
MAX_MISMATCH = 0.12  # natural log, between the two widths that ought to be the same
SAME = 0.02
LEAST_SPOTS = 2
EDGE_SCALES_PX = (1.0, 2.0, 4.0)
LEAST_EDGE_PIXELS = 24
LEAST_GRADIENT = 0.004  # linear per pixel
LEAST_SOFT_PX = 2.0  # an edge softer than this in one of the clips is out of focus there
WIDEST_IN_SCALES = 8.0  # how much wider than the scale a blur may be to be read at it
MAX_SPREAD = 0.3  # natural log: edges that disagree more are mostly other things' edges
STEADY = 0.35  # natural log: how well two scales must agree on the wider of two blurs


def pool(logs_N: Floats, weights_N: Floats) -> float:
    """Return the weighted mean of logarithms that lie within three robust deviations (at least 5 %) of their median."""
    order_N = np.argsort(logs_N)
    share_N = np.cumsum(weights_N[order_N]) / weights_N.sum()
    median = float(logs_N[order_N][min(len(logs_N) - 1, int(np.searchsorted(share_N, 0.5)))])
    away_N = np.abs(logs_N - median)
    kept_N = away_N <= max(0.05, 3 * 1.4826 * float(np.median(away_N)))
    return float(logs_N[kept_N] @ weights_N[kept_N] / weights_N[kept_N].sum())


def relative_stops(frames_THW3: Bytes, reference_THW3: Bytes) -> float | None:
    """Return how many stops wider a clip's aperture is than the reference's, or None where no blur can be compared."""
    if frames_THW3.shape[1:] != reference_THW3.shape[1:]:
        return None
    votes, shared = _spot_votes(find_spots(frames_THW3), find_spots(reference_THW3))
    if len(votes) >= max(LEAST_SPOTS, shared / 2):
        logs_N, sizes_N = np.array(votes).T
        return 2.0 * pool(logs_N, sizes_N) / math.log(2)
    return _edge_stops(frames_THW3, reference_THW3)


def _spot_votes(spots: tuple[Spot, ...], others: tuple[Spot, ...]) -> tuple[list[tuple[float, float]], int]:
    """Return (natural log of the blur ratio, smaller blur in pixels) where it can be read, and how many spots both have."""
    votes, shared = [], 0
    for spot in spots:
        near = [(math.hypot(spot.x_px - other.x_px, spot.y_px - other.y_px), index) for index, other in enumerate(others)]
        distance, index = min(near, default=(math.inf, -1))
        if distance > max(2.0, 0.15 * spot.wide_px):
            continue
        shared += 1
        vote = _vote(spot, others[index])
        if vote is not None:
            votes.append(vote)
    return votes, shared


def _vote(spot: Spot, other: Spot) -> tuple[float, float] | None:
    """Compare one spot in two clips: the outline is the pair of widths that agree best, the blur the pair that is left."""
    best: tuple[float, float, float] | None = None
    for outline, blur in ((spot.wide_px, spot.narrow_px), (spot.narrow_px, spot.wide_px)):
        for other_outline, other_blur in ((other.wide_px, other.narrow_px), (other.narrow_px, other.wide_px)):
            if min(blur, other_blur) < LEAST_PX:
                continue
            mismatch = abs(math.log(math.hypot(outline, PIXEL_BLUR_PX) / math.hypot(other_outline, PIXEL_BLUR_PX)))
            change = math.log(blur / other_blur)
            in_focus = outline < LEAST_PX and abs(change) < SAME and not spot.clipped
            if not in_focus and (best is None or mismatch < best[0]):
                best = (mismatch, change, min(blur, other_blur, MOST_WEIGHT_PX))
    return None if best is None or best[0] > MAX_MISMATCH else best[1:]


def _edge_stops(frames_THW3: Bytes, reference_THW3: Bytes) -> float | None:
    """Compare the widths of the same edges in both clips' first frames, where they are out of focus in either."""
    linear_HW, other_HW = (_linear_luma(frames[0]) for frames in (frames_THW3, reference_THW3))
    if min(linear_HW.shape) < 16:
        return None
    scales_px = (*EDGE_SCALES_PX, 2 * EDGE_SCALES_PX[-1])
    slopes_SHW, other_slopes_SHW = (np.stack([_gradients(part, s) for s in scales_px]) for part in (linear_HW, other_HW))
    weaker_HW = np.minimum(slopes_SHW[1], other_slopes_SHW[1])
    ridge_HW = (weaker_HW >= ndimage.maximum_filter(weaker_HW, size=3)) & (weaker_HW > LEAST_GRADIENT)
    sizes_SP = _edge_sizes_px(slopes_SHW[:, ridge_HW])
    other_sizes_SP = _edge_sizes_px(other_slopes_SHW[:, ridge_HW])
    larger_SP, smaller_SP = np.maximum(sizes_SP, other_sizes_SP), np.minimum(sizes_SP, other_sizes_SP)
    fits_SP = (larger_SP < WIDEST_IN_SCALES * np.array(EDGE_SCALES_PX)[:, None]) & (smaller_SP > LEAST_PX)
    fits_SP &= larger_SP > LEAST_SOFT_PX
    steady_SP = np.abs(np.log(np.maximum(larger_SP[:-1], 1e-3) / np.maximum(larger_SP[1:], 1e-3))) < STEADY
    fits_SP &= np.concatenate([steady_SP, steady_SP[-1:]])  # a neighbour's edge would widen one scale and not the other
    some_P = fits_SP.any(axis=0)
    first_P = fits_SP.argmax(axis=0)[some_P]
    place_P = np.flatnonzero(some_P)
    if len(place_P) < LEAST_EDGE_PIXELS:
        return None
    size_P, other_P = sizes_SP[first_P, place_P], other_sizes_SP[first_P, place_P]
    logs_P = np.log(size_P / other_P)
    if 1.4826 * float(np.median(np.abs(logs_P - np.median(logs_P)))) > MAX_SPREAD:
        return None
    return 2.0 * pool(logs_P, np.minimum(size_P, other_P)) / math.log(2)


def _edge_sizes_px(slopes_SP: Floats) -> Floats:
    """Return the blur-disc diameter of edges at each pair of scales, from how much their slope falls when smoothed on.

    The slope of a step blurred by a disc and smoothed by a Gaussian has a closed form in the ratio of the two (tabulated);
    the quotient of two smoothings is free of the step's height. After Zhuo and Sim, "Defocus map estimation from a single
    image" (2011), who blur by a Gaussian. 0 where no disc gives the quotient.
    """
    rows = []
    for index, scale_px in enumerate(EDGE_SCALES_PX):
        sizes_K, quotients_K = _quotient_table(scale_px)
        quotient_P = slopes_SP[index] / np.maximum(slopes_SP[index + 1], 1e-9)
        rows.append(np.interp(-quotient_P, -quotients_K, sizes_K, left=0.0, right=1e3))
    return np.stack(rows)


@lru_cache(maxsize=8)
def _quotient_table(scale_px: float) -> tuple[Floats, Floats]:
    """Return disc diameters `[K]` and the quotient `[K]` of edge slopes at a scale and at twice that scale."""
    sizes_K = np.geomspace(0.2, 14.0 * scale_px, 120)
    across_M = (np.arange(400) + 0.5) / 200 - 1.0  # a disc's line spread is a half-ellipse
    weight_M = np.sqrt(1 - across_M**2)
    slopes = []
    for smooth_px in (scale_px, 2 * scale_px):
        sigma = math.hypot(smooth_px, PIXEL_BLUR_PX / 4)
        spread_KM = np.exp(-((sizes_K[:, None] / 2 * across_M) ** 2) / (2 * sigma**2)) / sigma
        slopes.append((spread_KM * weight_M).sum(axis=1))
    return sizes_K, slopes[0] / slopes[1]


def _linear_luma(frame_HW3: Bytes) -> Floats:
    luma_HW = sum((frame_HW3[..., channel] * (LUMA_3[channel] / 255.0) for channel in range(3)), start=np.float64(0))
    return np.asarray(srgb_decode(luma_HW))


def _gradients(linear_HW: Floats, scale_px: float) -> Floats:
    return np.asarray(ndimage.gaussian_gradient_magnitude(linear_HW, scale_px, truncate=3.0))
