"""What should be neutral in a picture, and the colour temperature of the light on it: blind reading of sRGB frames.

A cell of the picture is a *candidate* where its chromaticity is that of a neutral under some black body. Candidates vote
over mired. A vote counts by how many luminance levels share its chromaticity, not by area, so that a grey card or a grey ball
outweighs a large coloured surface that happens to lie near the locus: neutral things keep their chromaticity from black to
white, a coloured one is seen at few luminances. (White points held to the locus: Finlayson, Hordley and Hubel 2001, "Color by
correlation".) The winner is refined over all its candidates, one sample a code level, because 8-bit rounding is shared by all
pixels of a level and averages out only across levels.

Legend: B cells, 3 channels, 2 log ratios (ln R/G, ln B/G), M steps of mired, L luminance bins, J code levels; T, H, W as usual.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from scenes.arrays import Bytes, Floats32
from scenes.palette import srgb_decode, srgb_encode
from scenes.white import MAX_KELVIN, MIN_KELVIN, adaptation_33, neutral_rgb

MIN_MIRED, MAX_MIRED = 1e6 / MAX_KELVIN, 1e6 / MIN_KELVIN
MAX_FRAMES = 4  # evenly spaced frames that are read: more add nothing but time
CELLS_ACROSS = 128
CODE_SIGMA_3 = np.array([0.6, 0.45, 0.9], dtype=np.float32)  # 8-bit rounding and 4:2:0 chroma, in codes
TINT_SIGMA = 0.01  # how far from the locus, in log ratio, a neutral may lie
MIN_CODE, MAX_CODE = 12.0, 251.0
CHROMA_REACH_PX = 2  # 4:2:0 halves chroma and filters it twice
MIN_AREA = 0.002  # of the picture: less than this on one chromaticity is no evidence
FLOOR = 1e-3  # linear blue under which Rec.709 has none left
BINS_PER_STOP = 2
IMPLAUSIBLE_MIRED = 600.0  # beyond, Rec.709 has no blue left and red things imitate neutrals
LUMINANCE_BINS = 16


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Square cells of a few frames: mean linear colour, log ratios, their variance, and where they are."""

    linear_B3: Floats32
    code_B3: Floats32
    ratio_B2: Floats32
    variance_B3: Floats32
    share: float
    index_B: NDArray[np.int64]
    grid: tuple[int, int, int]  # frames, rows, columns
    size_px: int


@dataclass(frozen=True, kw_only=True)
class Neutral:
    """The neutral found: mired of its cast, evidence for it, how much evidence the best rival has, and where it is."""

    mired: float
    sigma_mired: float
    area: float
    levels: float
    rival_levels: float
    place_px: tuple[float, float, float]  # x, y, size in the picture


@lru_cache(maxsize=1)
def _locus() -> tuple[Floats32, Floats32, Floats32]:
    """Return mired `[M]` in steps of 1, the log ratios of a neutral `[M, 2]`, and their slope per mired `[M, 2]`."""
    mired_M = np.arange(MIN_MIRED, MAX_MIRED + 0.5)
    rgb_M3 = np.array([neutral_rgb(1e6 / value) for value in mired_M])
    # Past the gamut (about 530 mired) blue is nothing: let it fall smoothly so that the slope stays finite.
    blue_M = np.where(rgb_M3[:, 2] > 2 * FLOOR, rgb_M3[:, 2], 0.0)
    last = int(np.argmin(blue_M > 0)) if np.any(blue_M <= 0) else len(mired_M)
    blue_M[last:] = np.maximum(2 * FLOOR * 0.99 ** np.arange(1, len(mired_M) - last + 1), 1e-5)
    ratio_M2 = np.log(np.stack([rgb_M3[:, 0], blue_M], axis=1) / rgb_M3[:, 1:2])
    slope_M2 = np.gradient(ratio_M2, axis=0)
    return mired_M.astype(np.float32), ratio_M2.astype(np.float32), slope_M2.astype(np.float32)


def _pick_frames(frames_THW3: Bytes) -> Bytes:
    count = frames_THW3.shape[0]
    picked = np.unique(np.linspace(0, count - 1, min(count, MAX_FRAMES)).round().astype(int))
    return np.asarray(frames_THW3[picked])


def cells_of(frames_THW3: Bytes) -> Cells | None:
    """Average frames over small cells; None where nothing is left between black and clipped white."""
    frames_THW3 = _pick_frames(frames_THW3)
    _, height, width, _ = frames_THW3.shape
    size = max(1, min(height, width, max(2, min(height, width) // CELLS_ACROSS)))
    rows, columns = height // size, width // size
    cut_THW3 = frames_THW3[:, : rows * size, : columns * size]
    total = np.zeros((len(cut_THW3), rows, columns, 3), dtype=np.uint32)
    for row in range(size):
        for column in range(size):
            total += cut_THW3[:, row::size, column::size]
    code = total.astype(np.float32) / (size * size)
    busy = _chroma_activity(code, math.ceil(CHROMA_REACH_PX / size)).reshape(-1)
    code_B3 = code.reshape(-1, 3)
    index_B = np.flatnonzero((code_B3[:, 1] > MIN_CODE) & (code_B3.max(axis=1) < MAX_CODE))
    if index_B.size == 0:
        return None
    code_B3, busy = code_B3[index_B], busy[index_B]
    linear_B3 = srgb_decode(code_B3 / np.float32(255))
    ratio_B2, per_code_B3 = _log_ratios(code_B3, linear_B3)
    variance_B3 = per_code_B3 * (CODE_SIGMA_3**2 + (0.2 * busy[:, None]) ** 2)
    return Cells(
        linear_B3=linear_B3,
        code_B3=code_B3,
        ratio_B2=ratio_B2,
        variance_B3=variance_B3,
        share=1.0 / (len(cut_THW3) * rows * columns),
        index_B=index_B,
        grid=(len(cut_THW3), rows, columns),
        size_px=size,
    )


def _chroma_activity(code: Floats32, reach: int) -> Floats32:
    """Return how much R-G and B-G change within `reach` cells, in codes: there 4:2:0 chroma is a mixture."""
    chroma = code[..., ::2] - code[..., 1:2]
    busy = np.zeros(code.shape[:-1], dtype=np.float32)
    for axis in (1, 2):
        for away in range(1, min(reach, code.shape[axis] - 1) + 1):
            ahead, behind = [slice(None)] * 3, [slice(None)] * 3
            ahead[axis], behind[axis] = slice(None, -away), slice(away, None)
            step = np.abs(chroma[tuple(ahead)] - chroma[tuple(behind)]).max(axis=-1) * (0.5 ** (away - 1))
            np.maximum(busy[tuple(ahead)], step, out=busy[tuple(ahead)])
            np.maximum(busy[tuple(behind)], step, out=busy[tuple(behind)])
    return np.maximum(busy - 2.0, 0.0)  # two codes are rounding, not an edge


def _slope_per_code(code_B3: Floats32) -> Floats32:
    """Return the change of linear light per 8-bit code (derivative of the sRGB decoding)."""
    value = code_B3 / np.float32(255)
    power = 2.4 / 1.055 * ((np.maximum(value, 0.04045) + 0.055) / 1.055) ** 1.4
    return np.asarray(np.where(value <= 0.04045, 1 / 12.92, power) / 255, dtype=np.float32)


def nearest(ratio_B2: Floats32, variance_B3: Floats32, tint_sigma: float) -> tuple[Floats32, Floats32, Floats32]:
    """Return the most likely mired `[B]` of neutrals with these log ratios, its sigma, and the squared distance `[B]`.

    The distance is in sigmas, across the locus; the search is Gauss-Newton from the red-blue ratio, which is monotone.
    """
    mired_M, ratio_M2, slope_M2 = _locus()
    xx = variance_B3[:, 0] + variance_B3[:, 1] + tint_sigma**2
    yy = variance_B3[:, 2] + variance_B3[:, 1] + tint_sigma**2
    xy = variance_B3[:, 1]
    scale = 1.0 / (xx * yy - xy * xy)
    red_M = ratio_M2[:, 0] - ratio_M2[:, 1]
    found_B = np.interp(ratio_B2[:, 0] - ratio_B2[:, 1], red_M, mired_M).astype(np.float32)
    for step in range(3):
        at_B = np.clip(np.rint(found_B - mired_M[0]), 0, len(mired_M) - 1).astype(np.intp)
        slope_B2 = slope_M2[at_B]
        off_B2 = ratio_B2 - ratio_M2[at_B] - slope_B2 * (found_B - mired_M[at_B])[:, None]
        px = (yy * slope_B2[:, 0] - xy * slope_B2[:, 1]) * scale
        py = (xx * slope_B2[:, 1] - xy * slope_B2[:, 0]) * scale
        information = px * slope_B2[:, 0] + py * slope_B2[:, 1]
        if step < 2:
            move_B = (px * off_B2[:, 0] + py * off_B2[:, 1]) / information
            found_B = np.clip(found_B + np.clip(move_B, -60, 60), mired_M[0], mired_M[-1])
    off_x, off_y = off_B2[:, 0], off_B2[:, 1]
    distance_B = (yy * off_x**2 - 2 * xy * off_x * off_y + xx * off_y**2) * scale
    return found_B, 1.0 / np.sqrt(information), distance_B


def nearest_to(linear_3: Sequence[float]) -> tuple[float, float]:
    """Return the mired of the neutral that is nearest to a linear colour, and its distance across the locus, in log ratio."""
    linear = np.maximum(np.asarray(linear_3, dtype=np.float32), np.float32(FLOOR))
    mired_M, ratio_M2, _ = _locus()
    away_M = np.hypot(*(np.log(linear[[0, 2]] / linear[1]) - ratio_M2).T)
    place = int(np.argmin(away_M))
    return float(mired_M[place]), float(away_M[place])


def imitates_neutral(linear_3: Sequence[float], kelvins: Sequence[float]) -> bool:
    """Return whether a linear colour, seen under 6500 K, looks under any of these lights like a neutral under another light.

    As an 8-bit picture shows it: within 3 sigmas of the locus, more than 2 mired from the light it is really under, and at a
    temperature that is a light's (a candle is at 540 mired).
    """
    for kelvin in kelvins:
        cast_3 = np.maximum(adaptation_33(kelvin) @ np.asarray(linear_3), 0.0)
        code_13 = (srgb_encode(cast_3.astype(np.float32)) * np.float32(255))[None]
        ratio_12, variance_13 = _log_ratios(code_13, srgb_decode(code_13 / np.float32(255)))
        found, _, distance = nearest(ratio_12, variance_13 * CODE_SIGMA_3**2, TINT_SIGMA)
        if distance[0] < 9.0 and abs(float(found[0]) - 1e6 / kelvin) > 2.0 and found[0] < IMPLAUSIBLE_MIRED:
            return True
    return False


def _log_ratios(code_B3: Floats32, linear_B3: Floats32) -> tuple[Floats32, Floats32]:
    """Return ln R/G and ln B/G `[B, 2]`, and the variance of ln R, ln G, ln B per squared code `[B, 3]`."""
    safe_B3 = np.maximum(linear_B3, np.float32(1e-4))
    return np.log(safe_B3[:, ::2] / safe_B3[:, 1:2]), (_slope_per_code(code_B3) / safe_B3) ** 2


def _vote(cells: Cells, mired_B: Floats32, sigma_B: Floats32, weight_B: Floats32) -> tuple[Floats32, Floats32]:
    """Return, per step of mired, the number of luminance levels seen there `[M]` and the area `[M]`."""
    count = len(_locus()[0])
    level_B = np.clip(-np.log2(cells.linear_B3.max(axis=1)) * BINS_PER_STOP, 0, LUMINANCE_BINS - 1).astype(np.intp)
    at_B = np.clip(np.rint(mired_B - MIN_MIRED), 0, count - 1).astype(np.intp)
    area_LM = np.bincount(level_B * count + at_B, weights=weight_B * cells.share, minlength=LUMINANCE_BINS * count)
    area_LM = area_LM.reshape(LUMINANCE_BINS, count)
    offset = np.arange(-40, 41)
    for level in range(LUMINANCE_BINS):
        inside_B = level_B == level
        if inside_B.any():
            width = float(np.clip(1.0 + np.median(sigma_B[inside_B]), 2.0, 15.0))
            area_LM[level] = np.convolve(area_LM[level], np.exp(-0.5 * (offset / width) ** 2), mode="same")
    bright_L = 2.0 ** (-0.2 * np.arange(LUMINANCE_BINS) / BINS_PER_STOP)
    levels_M = (bright_L[:, None] * area_LM / (area_LM + 0.001)).sum(axis=0)
    return (levels_M * _plausible()).astype(np.float32), area_LM.sum(axis=0).astype(np.float32)


def _plausible() -> Floats32:
    """Return a mild prior over mired: past the Rec.709 gamut (no blue left) red things imitate neutrals."""
    mired_M = _locus()[0]
    return np.interp(mired_M, [0, 540, IMPLAUSIBLE_MIRED, 1000], [1.0, 1.0, 0.6, 0.2]).astype(np.float32)


def find_neutral(frames_THW3: Bytes) -> Neutral | None:
    """Find the neutral of sRGB frames and the mired of the light on it; None where nothing qualifies."""
    cells = cells_of(frames_THW3)
    if cells is None:
        return None
    mired_B, sigma_B, distance_B = nearest(cells.ratio_B2, cells.variance_B3, TINT_SIGMA)
    # A cell whose own reading is uncertain says little about where the peak is, nor that it is on the locus.
    weight_B = np.exp(-0.5 * distance_B) * np.minimum(1.0, (12.0 / sigma_B) ** 2)
    levels_M, area_M = _vote(cells, mired_B, sigma_B, weight_B)
    peak = int(np.argmax(levels_M))
    if area_M[peak] < MIN_AREA:
        return None
    mired_M = _locus()[0]
    rivals_M = np.where(np.abs(mired_M - mired_M[peak]) > 25 + 0.1 * mired_M[peak], levels_M, 0.0)
    center = float(mired_M[peak])
    for _ in range(2):
        near_B = _members(center, mired_B, sigma_B, distance_B)
        center, sigma = _refine(cells, near_B, center)
    return Neutral(
        mired=center,
        sigma_mired=sigma,
        area=float(area_M[peak]),
        levels=float(levels_M[peak]),
        rival_levels=float(rivals_M.max()),
        place_px=_place(cells, near_B, weight_B),
    )


def _members(center: float, mired_B: Floats32, sigma_B: Floats32, distance_B: Floats32) -> NDArray[np.bool_]:
    """Return the cells of the neutral: near the peak, on the locus, and among those that say most clearly where they are."""
    near_B: NDArray[np.bool_] = (np.abs(mired_B - center) < 3 * sigma_B + 4) & (distance_B < 6)
    if not near_B.any():
        return near_B
    close_B = near_B & (np.abs(mired_B - center) < 15)  # cells at edges to coloured things are vague and lie far off
    clear = float(np.quantile(sigma_B[close_B if close_B.any() else near_B], 0.4))
    return np.asarray(near_B & (sigma_B <= max(2.0, 2.0 * clear)))


def _refine(cells: Cells, near_B: NDArray[np.bool_], center: float) -> tuple[float, float]:
    """Return the mired and its sigma from the chosen cells: one sample per green code level, then robust least squares."""
    if not near_B.any():
        return center, float("inf")
    level_B = cells.code_B3[near_B, 1].astype(np.intp)
    trust_B = 1.0 / cells.variance_B3[near_B].sum(axis=1)
    mass_J = np.bincount(level_B, weights=trust_B, minlength=256)
    used_J = np.flatnonzero(mass_J)
    columns = [cells.ratio_B2[near_B, 0], cells.ratio_B2[near_B, 1], *cells.variance_B3[near_B].T]
    mean = [np.bincount(level_B, weights=trust_B * column, minlength=256)[used_J] / mass_J[used_J] for column in columns]
    cell_count_J = np.bincount(level_B, minlength=256)[used_J]
    few_J = 1.0 + 2.0 / cell_count_J  # a level seen in one cell is noise as much as rounding
    ratio_J2 = np.stack(mean[:2], axis=1).astype(np.float32)
    variance_J3 = (np.stack(mean[2:], axis=1) * few_J[:, None]).astype(np.float32)
    mired_J, sigma_J, _ = nearest(ratio_J2, variance_J3, 1e-3)
    weight_J = 1.0 / sigma_J**2
    value = center
    for _ in range(8):
        pull_J = weight_J / np.maximum(1.0, np.abs(mired_J - value) / (1.5 * sigma_J))
        value = float((pull_J * mired_J).sum() / pull_J.sum())
    return value, float(1.0 / np.sqrt(weight_J.sum()))


def _place(cells: Cells, near_B: NDArray[np.bool_], weight_B: Floats32) -> tuple[float, float, float]:
    """Return where the brightest quarter of the neutral cells lies: median x and y, and the side of a square as large."""
    chosen = np.flatnonzero(near_B)
    if chosen.size == 0:
        return (0.0, 0.0, 0.0)
    green = cells.code_B3[chosen, 1]
    chosen = chosen[green >= np.quantile(green, 0.75)]
    frames, rows, columns = cells.grid
    place = cells.index_B[chosen] % (rows * columns)
    side = cells.size_px * np.sqrt(float(weight_B[chosen].sum()) / frames)
    x_px = (float(np.median(place % columns)) + 0.5) * cells.size_px
    y_px = (float(np.median(place // columns)) + 0.5) * cells.size_px
    return (x_px, y_px, float(side))


def cast_between(frames_THW3: Bytes, reference_THW3: Bytes) -> float | None:
    """Return how many mired warmer the first clip is than a reference of the same content, whose cast is taken as none.

    Fits one adaptation from 6500 K to the log ratios of matching cells, by least absolute deviation, so brightness may change
    and a part of the content may differ. None where under 20 cells are usable or the content does not match.
    """
    here, there = _coarse(frames_THW3), _coarse(reference_THW3)
    usable_B = np.all([(part[:, 1] > 0.004) & (part.max(axis=1) < 0.97) for part in (here, there)], axis=0)
    if int(usable_B.sum()) < 20:
        return None
    here, there = here[usable_B], there[usable_B]
    floor_3 = np.array([2e-3, 0.0, 2e-3], dtype=np.float32)
    ratio_B2 = np.log((here + floor_3)[:, ::2] / here[:, 1:2])
    trust_B2 = _trust(here) * _trust(there) * _rarity(there)[:, None]
    trust_B2 = trust_B2 / trust_B2.sum()

    def misfit(value: float) -> float:
        cast_B3 = np.maximum(there @ adaptation_33(1e6 / value).T.astype(np.float32), 0.0)
        off_B2 = np.log((cast_B3 + floor_3)[:, ::2] / np.maximum(cast_B3[:, 1:2], 1e-4)) - ratio_B2
        return float((np.abs(off_B2) * trust_B2).sum())

    best, step = 1e6 / 6500.0, 64.0
    grid = np.geomspace(MIN_MIRED, MAX_MIRED, 40)
    best = float(min([best, *grid], key=misfit))
    while step > 0.05:
        best = float(min(np.clip([best - step, best, best + step], MIN_MIRED, MAX_MIRED), key=misfit))
        step *= 0.6
    return best - 1e6 / 6500.0 if misfit(best) < 0.5 else None


def _trust(linear_B3: Floats32) -> Floats32:
    """Return how well the log ratios of linear colours survive 8 bits `[B, 2]`, in (0, 1]: little where a channel is dark."""
    code_B3 = srgb_encode(linear_B3) * np.float32(255)
    variance_B3 = _log_ratios(code_B3, linear_B3)[1] * CODE_SIGMA_3**2
    return np.asarray(0.01 / np.sqrt(1e-4 + variance_B3[:, ::2] + variance_B3[:, 1:2]), dtype=np.float32)


def _rarity(linear_B3: Floats32) -> Floats32:
    """Return weights `[B]` that keep one wide flat surface, all rounded alike, from outvoting everything else."""
    code_B3 = (srgb_encode(linear_B3) * np.float32(255)).astype(np.int64) // 6
    _, inverse_B, count = np.unique(code_B3 @ np.array([1, 64, 4096]), return_inverse=True, return_counts=True)
    return np.asarray(count[inverse_B] ** -0.75, dtype=np.float32)


def _coarse(frames_THW3: Bytes) -> Floats32:
    """Return mean linear colours of about 32 x 32 cells of a few frames `[B, 3]`."""
    frames_THW3 = _pick_frames(frames_THW3)
    _, height, width, _ = frames_THW3.shape
    size = max(1, min(height, width) // 32)
    stride = max(1, size // 8)
    rows, columns = height // size, width // size
    cut_THW3 = frames_THW3[:, : rows * size, : columns * size]
    table = srgb_decode(np.arange(256, dtype=np.float32) / np.float32(255))
    total = np.zeros((len(cut_THW3), rows, columns, 3), dtype=np.float32)
    steps = range(0, size, stride)
    for row in steps:
        for column in steps:
            total += table[cut_THW3[:, row::size, column::size]]
    return (total / len(steps) ** 2).reshape(-1, 3)
