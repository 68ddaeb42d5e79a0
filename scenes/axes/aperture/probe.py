"""Blur discs in a picture: finds round bright spots and measures, below the pixel, how wide they are and how soft.

A defocused spot is its own outline convolved with the lens's blur disc. For a round spot of diameter e and a blur disc of
diameter d the profile over the radius is the overlap of two discs, which depends on {e, d} as a set: the larger is the
width at half height (`wide_px`), the smaller the width of the soft rim (`narrow_px`). Which of the two is the lens's is not
in the shape. It is in the brightness: a light so small and strong that its disc still clips to white shows its blur disc
whole, whereas the rim of a spot within the display's range belongs to something seen as wide as it is.

Array legend: T frames, H rows, W columns, 3 channels; K radial bins; N spots.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from scenes.arrays import Bytes, Floats
from scenes.axes.aperture.disc_profile import PIXEL_BLUR_PX, fit_clipped, fit_profile, radial_profile
from scenes.palette import srgb_decode

LUMA_3 = np.array([0.2126, 0.7152, 0.0722])  # ITU-R BT.709
CLIPPED = 250 / 255
LEVELS = 8
MOST_SPOTS = 48
MIN_AMPLITUDE = 0.02  # scene-linear
MAX_RESIDUAL = 0.035  # rms misfit of the profile, as a share of the spot's height
MAX_DISAGREEMENT = 0.15  # natural log, between the fitted width and that of the outline at half height
MAX_STRETCH = 1.2  # long over short axis
STILL_RANGE = 0.12  # linear: how much a spot's pixels may change over a clip that is averaged


@dataclass(frozen=True, kw_only=True)
class Spot:
    """One round bright spot: its centre, width at half height and rim width in pixels (pixel blur removed)."""

    x_px: float
    y_px: float
    wide_px: float
    narrow_px: float
    clipped: bool
    residual: float

    @property
    def blur_px(self) -> float:
        """The diameter of the lens's blur disc; 0 where the spot looks sharp."""
        return self.wide_px if self.clipped else self.narrow_px


def find_spots(frames_THW3: Bytes) -> tuple[Spot, ...]:
    """Return the round bright spots of a clip, placed as in its first frame, widest first."""
    luma_HW = _luma_bytes(frames_THW3[0])
    spots: list[Spot] = []
    for x_px, y_px, radius_px in _candidates(luma_HW):
        if any(_same(spot, x_px, y_px) for spot in spots):
            continue
        spot = _measure(frames_THW3, x_px, y_px, radius_px)
        if spot is not None and not any(_same(other, spot.x_px, spot.y_px) for other in spots):
            spots.append(spot)
    return tuple(sorted(spots, key=lambda spot: -spot.wide_px))


def _same(spot: Spot, x_px: float, y_px: float) -> bool:
    return float(np.hypot(spot.x_px - x_px, spot.y_px - y_px)) < max(1.5, 0.3 * spot.wide_px)


def _luma_bytes(frame_HW3: Bytes) -> Bytes:
    red_HW, green_HW, blue_HW = (frame_HW3[..., channel].astype(np.uint16) for channel in range(3))
    luma_HW = red_HW * 54 + green_HW * 183 + blue_HW * 19  # BT.709 luma in 1/256
    return np.asarray(luma_HW >> 8, dtype=np.uint8)


def _candidates(luma_HW: Bytes) -> list[tuple[float, float, float]]:
    """Return (x, y, radius) in pixels of round connected regions above any of several levels, lowest level first."""
    low, high = float(np.median(luma_HW)), float(luma_HW.max())
    if high - low < 2 * LEVELS:
        low = float(luma_HW.min())
    found: list[tuple[float, float, float]] = []
    if high - low < 2 * LEVELS:
        return found
    for level in low + (high - low) * np.arange(1, LEVELS) / LEVELS:
        for x_px, y_px, radius_px in _round_regions(luma_HW > level):
            near = (abs(x_px - x) + abs(y_px - y) < 0.25 * radius + 0.75 for x, y, radius in found)
            if not any(near):
                found.append((x_px, y_px, radius_px))
        if len(found) >= MOST_SPOTS:
            break
    return found[:MOST_SPOTS]


def _round_regions(mask_HW: NDArray[np.bool_]) -> Floats:
    """Return `[N, 3]` centre x, y and radius (pixels) of the round regions of a mask that lie clear of the border."""
    labels_HW, count = ndimage.label(mask_HW)
    height, width = mask_HW.shape
    place_P = np.flatnonzero(mask_HW)
    label_P = labels_HW.ravel()[place_P]
    x_P, y_P = (place_P % width) + 0.5, (place_P // width) + 0.5
    area_N = np.bincount(label_P, minlength=count + 1).astype(np.float64)
    area_N[0] = 1.0
    mean_x_N, mean_y_N = (np.bincount(label_P, part, count + 1) / area_N for part in (x_P, y_P))
    xx_N = np.bincount(label_P, x_P * x_P, count + 1) / area_N - mean_x_N**2 + 1 / 12
    yy_N = np.bincount(label_P, y_P * y_P, count + 1) / area_N - mean_y_N**2 + 1 / 12
    xy_N = np.bincount(label_P, x_P * y_P, count + 1) / area_N - mean_x_N * mean_y_N
    spread_N = np.sqrt(np.maximum((xx_N - yy_N) ** 2 / 4 + xy_N**2, 0.0))
    long_N, short_N = (xx_N + yy_N) / 2 + spread_N, np.maximum((xx_N + yy_N) / 2 - spread_N, 1e-6)
    fill_N = area_N / (4 * np.pi * np.sqrt(long_N * short_N))  # 1 for any ellipse, 0.955 for a square
    radius_N = np.sqrt(area_N / np.pi)
    loose_N = area_N < 60
    good_N = (area_N >= 3) & (radius_N < 0.25 * min(height, width))
    good_N &= np.sqrt(long_N / short_N) < np.where(loose_N, 1.6, MAX_STRETCH)
    good_N &= fill_N > np.where(loose_N, 0.9, 0.965)
    reach_N = 1.3 * radius_N
    good_N &= (mean_x_N > reach_N) & (mean_y_N > reach_N) & (mean_x_N < width - reach_N) & (mean_y_N < height - reach_N)
    good_N[0] = False
    return np.stack([mean_x_N, mean_y_N, radius_N], axis=1)[good_N]


def _measure(frames_THW3: Bytes, x_px: float, y_px: float, radius_px: float) -> Spot | None:
    """Measure one candidate, or return None where it is not a round flat spot with a clean surround."""
    _, height, width, _ = frames_THW3.shape
    reach = 2.0 * radius_px + 6.0
    x0, x1 = max(0, int(x_px - reach)), min(width, int(x_px + reach) + 2)
    y0, y1 = max(0, int(y_px - reach)), min(height, int(y_px + reach) + 2)
    patch_HW, clipped = _linear_patch(frames_THW3[:, y0:y1, x0:x1], x_px - x0, y_px - y0, radius_px)
    outline = _outline(patch_HW, x_px - x0, y_px - y0, radius_px)
    if outline is None:
        return None
    center_2, covariance_22, half_radius = outline
    profile = radial_profile(patch_HW, center_2, covariance_22, half_radius)
    fit = (fit_clipped if clipped else fit_profile)(*profile, half_radius)
    if fit is None or fit.residual > MAX_RESIDUAL or fit.amplitude < MIN_AMPLITUDE:
        return None
    if not clipped and abs(np.log(fit.wide_px / (2 * half_radius))) > MAX_DISAGREEMENT + PIXEL_BLUR_PX / half_radius / 2:
        return None
    narrow = float(np.sqrt(max(0.0, fit.narrow_px**2 - PIXEL_BLUR_PX**2)))
    wide = fit.wide_px
    if clipped and fit.wide_px < 3 * PIXEL_BLUR_PX:  # a small dot: only its whole extent is in the pixels
        extent_squared = fit.wide_px**2 + fit.narrow_px**2 - PIXEL_BLUR_PX**2
        wide, narrow = float(np.sqrt(max(0.0, extent_squared))), 0.0
    x, y = float(center_2[0]) + x0, float(center_2[1]) + y0
    return Spot(x_px=x, y_px=y, wide_px=wide, narrow_px=narrow, clipped=clipped, residual=fit.residual)


def _linear_patch(patch_THW3: Bytes, x_px: float, y_px: float, radius_px: float) -> tuple[Floats, bool]:
    """Return a patch's linear brightness, averaged over time where it stands still, and whether its middle clips.

    Channels that clip in the middle are left out, unless all do.
    """
    rows, columns = np.ogrid[0 : patch_THW3.shape[1], 0 : patch_THW3.shape[2]]
    middle_HW = np.hypot(columns + 0.5 - x_px, rows + 0.5 - y_px) <= max(0.8, 0.4 * radius_px)
    level_3 = patch_THW3[0][middle_HW].mean(axis=0) / 255.0 if middle_HW.any() else np.zeros(3)
    clips_3 = level_3 >= CLIPPED
    weights_3 = LUMA_3 if clips_3.all() else np.where(clips_3, 0.0, LUMA_3)
    weights_3 = weights_3 / weights_3.sum()
    shares_3 = (weights_3 / 255.0).astype(np.float32)
    luma_THW = sum((patch_THW3[..., channel] * shares_3[channel] for channel in range(3)), start=np.float32(0))
    linear_THW = np.asarray(srgb_decode(luma_THW))
    if len(linear_THW) == 1 or float(np.ptp(linear_THW, axis=0).max()) > STILL_RANGE:
        return linear_THW[0].astype(np.float64), bool(clips_3.all())
    return linear_THW.mean(axis=0, dtype=np.float64), bool(clips_3.all())


def _outline(patch_HW: Floats, x_px: float, y_px: float, radius_px: float) -> tuple[Floats, Floats, float] | None:
    """Return centre `[2]`, covariance `[2, 2]` and radius (pixels) of the region above half height, or None if not round."""
    height, width = patch_HW.shape
    rows_HW, columns_HW = np.mgrid[0:height, 0:width] + 0.5
    distance_HW = np.hypot(columns_HW - x_px, rows_HW - y_px)
    middle_HW = distance_HW <= max(0.8, 0.4 * radius_px)
    if not middle_HW.any():
        return None
    top, floor = float(np.median(patch_HW[middle_HW])), float(np.percentile(patch_HW, 15))
    if top - floor < MIN_AMPLITUDE:
        return None
    labels_HW, _ = ndimage.label(patch_HW > (top + floor) / 2)
    label = labels_HW[min(height - 1, int(y_px)), min(width - 1, int(x_px))]
    region_HW = labels_HW == label
    if label == 0 or region_HW[0].any() or region_HW[-1].any() or region_HW[:, 0].any() or region_HW[:, -1].any():
        return None
    near_HW = ndimage.binary_dilation(region_HW, iterations=2) if region_HW.sum() < 400 else region_HW
    weight_HW = np.clip((patch_HW - floor) / (top - floor) * 2 - 0.5, 0.0, 1.0) * near_HW
    total = float(weight_HW.sum())
    x, y = float((weight_HW * columns_HW).sum()) / total, float((weight_HW * rows_HW).sum()) / total
    dx_HW, dy_HW = columns_HW - x, rows_HW - y
    xx, yy, xy = (float((weight_HW * part).sum()) / total for part in (dx_HW**2, dy_HW**2, dx_HW * dy_HW))
    covariance_22 = np.array([[xx, xy], [xy, yy]])
    short, long = np.linalg.eigvalsh(covariance_22)
    if short <= 0 or long / short > MAX_STRETCH**2:
        return None
    return np.array([x, y]), covariance_22, float(np.sqrt(region_HW.sum() / np.pi))
