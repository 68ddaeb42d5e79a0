"""The profile of one disc blurred by another: closed form over the radius, and its least-squares fit.

The convolution of two uniform discs is the area in which they overlap, a lens of two circular segments. The blur of the
pixels themselves is folded into the narrower disc by its variance (a disc of diameter d has variance d^2 / 16 per axis).

Array legend: K radial bins, H rows, W columns, 2 pixel coordinates (x right, y down).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from scenes.arrays import Floats

PIXEL_BLUR_PX = 1.43  # the disc whose variance is that of a 1.5 px Blackman-Harris pixel filter (0.36 px rms)
BIN_PX = 0.5
LEAST_PX = 0.3
ROUND_ENOUGH_PX = 12.0  # radius from which an outline is told from a circle
STEPS = 20
RIM_PULL = 0.3  # how firmly a clipped spot's rim is held at the pixel blur
HEIGHT_PULL = 0.002  # and its height at the clip


@dataclass(frozen=True, kw_only=True)
class ProfileFit:
    """Two diameters in pixels (pixel blur still in the narrower), height, floor, and rms misfit over height."""

    wide_px: float
    narrow_px: float
    amplitude: float
    floor: float
    residual: float


def overlap(radius_K: Floats, wide_px: float, narrow_px: float) -> Floats:
    """Return the profile of two convolved discs of given diameters (pixels) at radii `[K]`, as a share of its plateau."""
    big, small = wide_px / 2, narrow_px / 2
    r_K = np.clip(radius_K, max(big - small, 1e-9), big + small)
    cos_small_K = np.clip((r_K**2 + small**2 - big**2) / (2 * r_K * small), -1.0, 1.0)
    cos_big_K = np.clip((r_K**2 + big**2 - small**2) / (2 * r_K * big), -1.0, 1.0)
    square_K = (-r_K + small + big) * (r_K + small - big) * (r_K - small + big) * (r_K + small + big)
    area_K = small**2 * np.arccos(cos_small_K) + big**2 * np.arccos(cos_big_K) - np.sqrt(np.maximum(square_K, 0.0)) / 2
    return np.asarray(area_K / (np.pi * small**2))


def radial_profile(
    patch_HW: Floats, center_2: Floats, covariance_22: Floats, half_radius_px: float
) -> tuple[Floats, Floats, Floats]:
    """Return mean radius, mean value and pixel count `[K]` of rings round a centre, out to the first dip of the surround.

    Rings follow the spot's ellipse where it is large enough to have one: a ball off the picture's centre is seen stretched.
    """
    rows_HW, columns_HW = np.mgrid[0 : patch_HW.shape[0], 0 : patch_HW.shape[1]] + 0.5
    dx_HW, dy_HW = columns_HW - center_2[0], rows_HW - center_2[1]
    if half_radius_px >= ROUND_ENOUGH_PX:
        inverse_22 = np.linalg.inv(covariance_22) * np.sqrt(np.linalg.det(covariance_22))
        square_HW = inverse_22[0, 0] * dx_HW**2 + 2 * inverse_22[0, 1] * dx_HW * dy_HW + inverse_22[1, 1] * dy_HW**2
    else:
        square_HW = dx_HW**2 + dy_HW**2
    radius_P = np.sqrt(square_HW).ravel()
    inside_P = radius_P < 2 * half_radius_px + 3.0
    radius_P, value_P = radius_P[inside_P], patch_HW.ravel()[inside_P]
    bin_P = (radius_P / BIN_PX).astype(np.intp)
    pixels_K = np.bincount(bin_P)
    full_K = pixels_K > 0
    count_K = pixels_K[full_K].astype(np.float64)
    mean_radius_K = np.bincount(bin_P, radius_P)[full_K] / count_K
    mean_value_K = np.bincount(bin_P, value_P)[full_K] / count_K
    keep = _first_dip(mean_radius_K, mean_value_K, half_radius_px)
    return mean_radius_K[:keep], mean_value_K[:keep], count_K[:keep]


def _first_dip(radius_K: Floats, value_K: Floats, half_radius_px: float) -> int:
    """Return how many rings to keep: up to where the surround starts to rise again by 3 % of the spot's height."""
    outside = int(np.searchsorted(radius_K, half_radius_px))
    if outside >= len(value_K) - 1:
        return len(value_K)
    lowest_K = np.minimum.accumulate(value_K[outside:])
    height = value_K[0] - lowest_K[-1]
    rises_K = value_K[outside:] - lowest_K > 0.03 * height
    if height <= 0 or not rises_K.any():  # in noise a spot's very centre may be darker than all around it
        return len(value_K)
    return outside + int(np.argmin(value_K[outside : outside + int(np.argmax(rises_K))])) + 1


def fit_profile(radius_K: Floats, value_K: Floats, count_K: Floats, half_radius_px: float) -> ProfileFit | None:
    """Fit two diameters, height and floor to a radial profile; None where there are too few rings or nothing to fit."""
    if len(radius_K) < 6:
        return None
    first = _descend(radius_K, value_K, count_K, 2 * half_radius_px, 0.5 * half_radius_px)
    if first is None:
        return None
    keep_K = radius_K <= (first.wide_px + first.narrow_px) / 2 * 1.08 + 2.0
    if keep_K.all() or keep_K.sum() < 6:
        return first
    return _descend(radius_K[keep_K], value_K[keep_K], count_K[keep_K], first.wide_px, first.narrow_px)


def _solve_linear(shape_K: Floats, value_K: Floats, weight_K: Floats) -> tuple[float, float, float]:
    """Return amplitude, floor and weighted squared misfit of `floor + amplitude * shape`."""
    total = float(weight_K.sum())
    mean_shape, mean_value = float(weight_K @ shape_K) / total, float(weight_K @ value_K) / total
    spread = float(weight_K @ (shape_K - mean_shape) ** 2)
    amplitude = float(weight_K @ ((shape_K - mean_shape) * (value_K - mean_value))) / max(spread, 1e-12)
    floor = mean_value - amplitude * mean_shape
    return amplitude, floor, float(weight_K @ (value_K - floor - amplitude * shape_K) ** 2)


def _descend(radius_K: Floats, value_K: Floats, count_K: Floats, wide_px: float, narrow_px: float) -> ProfileFit | None:
    """Minimise the misfit over both diameters (Levenberg-Marquardt; height and floor are eliminated at every step)."""
    at = np.array([max(wide_px, 2 * LEAST_PX), max(narrow_px, LEAST_PX)])
    damping = 1e-2
    shape_K = overlap(radius_K, at[0], at[1])
    amplitude, floor, cost = _solve_linear(shape_K, value_K, count_K)
    root_K = np.sqrt(count_K)
    for _ in range(STEPS):
        slopes = [(overlap(radius_K, *_ordered(at + step)) - shape_K) / 1e-3 for step in np.eye(2) * 1e-3]
        jacobian_K4 = np.stack([amplitude * slopes[0], amplitude * slopes[1], shape_K, np.ones_like(shape_K)], axis=1)
        jacobian_K4 = jacobian_K4 * root_K[:, None]
        normal_44 = jacobian_K4.T @ jacobian_K4
        gradient_4 = jacobian_K4.T @ (root_K * (value_K - floor - amplitude * shape_K))
        scale_4 = np.diag(normal_44) + 1e-12
        step_2 = np.linalg.solve(normal_44 + np.diag(damping * scale_4 + 1e-12), gradient_4)[:2]
        there = np.array(_ordered(at + np.clip(step_2, -0.5 * at[0], 0.5 * at[0])))
        shape_there_K = overlap(radius_K, there[0], there[1])
        amplitude_there, floor_there, cost_there = _solve_linear(shape_there_K, value_K, count_K)
        if cost_there < cost:
            done = float(np.abs(there - at).max()) < 1e-4
            at, shape_K, amplitude, floor, cost = there, shape_there_K, amplitude_there, floor_there, cost_there
            damping = max(damping / 5, 1e-7)
            if done:
                break
        else:
            damping *= 8
            if damping > 1e6:
                break
    if not np.isfinite(cost) or amplitude <= 0:
        return None
    residual = float(np.sqrt(cost / count_K.sum())) / amplitude
    return ProfileFit(wide_px=float(at[0]), narrow_px=float(at[1]), amplitude=amplitude, floor=floor, residual=residual)


def _ordered(at_2: Floats) -> tuple[float, float]:
    """Return the two diameters, larger first, neither below the least."""
    larger, smaller = float(max(at_2)), float(min(at_2))
    return max(larger, 2 * LEAST_PX), max(smaller, LEAST_PX)


def fit_clipped(radius_K: Floats, value_K: Floats, count_K: Floats, half_radius_px: float) -> ProfileFit | None:
    """Fit a profile whose top is cut off: two diameters and how far the height goes beyond the cut.

    Half of the visible height lies outside half of the true height, so a clipped disc looks wider than it is; how steeply
    the foot of its rim falls, against the pixel blur, tells by how much.
    """
    if len(radius_K) < 6:
        return None
    cut = float(value_K[radius_K <= max(1.0, 0.5 * half_radius_px)].max())
    beyond_K = radius_K > half_radius_px + 1.5 * PIXEL_BLUR_PX
    floor = float(np.median(value_K[beyond_K])) if beyond_K.any() else float(value_K.min())
    if cut <= floor:
        return None
    seen_K = (value_K - floor) / (cut - floor)
    weight_K = np.sqrt(count_K / count_K.sum())

    def misfit(at_3: Floats) -> Floats:
        wide, narrow = _ordered(np.exp(at_3[:2]))
        shape_K = np.minimum(1.0, np.exp(at_3[2]) * overlap(radius_K, wide, narrow))
        pulls_2 = np.array([RIM_PULL * (at_3[1] - np.log(PIXEL_BLUR_PX)), HEIGHT_PULL * at_3[2]])
        return np.concatenate([weight_K * (shape_K - seen_K), pulls_2])

    low_3 = np.log([2 * LEAST_PX, PIXEL_BLUR_PX / 2, 1.0])
    high_3 = np.log([4 * half_radius_px + 8.0, 2 * half_radius_px + 2.0, 1000.0])
    start_3 = np.clip(np.log([2 * half_radius_px, PIXEL_BLUR_PX, 2.0]), low_3 + 1e-6, high_3 - 1e-6)
    best = least_squares(misfit, start_3, bounds=(low_3, high_3), max_nfev=60)
    wide, narrow = _ordered(np.exp(best.x[:2]))
    residual = float(np.sqrt((misfit(best.x)[:-2] ** 2).sum()))
    return ProfileFit(wide_px=wide, narrow_px=narrow, amplitude=cut - floor, floor=floor, residual=residual)
