"""Scan lines along a motion: where a moving thing's edges are, and how much of it covers each sample, in linear light.

Brightness is read from the luma of the encoded picture (its chroma is subsampled by every common codec) and turned into
coverage through the scene-linear colours on both sides of the edge.

Array legend: F frames of a track, J scan lines of a frame, X samples of a line, E edges, N samples of an edge, 2 picture
coordinates (pixels), 3 channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from scenes.arrays import Bools, Bytes, Floats
from scenes.axes.shutter.ramps import Edges
from scenes.axes.shutter.tracking import Backdrop
from scenes.palette import srgb_decode

LUMA_3 = np.array([0.2126, 0.7152, 0.0722])  # ITU-R BT.709
MIN_CONTRAST = 0.05  # luma in [0, 1] between the two sides of an edge that can be read
MIN_CHANGE = 0.01  # the same in linear brightness, to find an edge at all
ONE_SIDED_SAMPLES, TWO_SIDED_SAMPLES = 32, 64
MARGIN_PX = 3.5
STEEPEST = 2.0  # an edge may lean so much: pixels along the motion per pixel across it


@dataclass(frozen=True, eq=False, kw_only=True)
class Patch:
    """One frame's cut-out round a moving thing: spline coefficients of its luma, its colours, and its corner (pixels)."""

    spline: Floats
    luma: Floats
    color: Bytes
    left: int
    top: int

    def luma_at(self, x: Floats, y: Floats, *, order: int) -> Floats:
        """Return the luma in [0, 1] at picture coordinates by spline (order 3) or linear (order 1) interpolation."""
        where = [y - self.top - 0.5, x - self.left - 0.5]
        source = self.spline if order == 3 else self.luma
        return np.asarray(ndimage.map_coordinates(source, where, order=order, prefilter=False, mode="nearest"))

    def color_at(self, x: Floats, y: Floats) -> Floats:
        """Return the sRGB colour in [0, 1] of the nearest pixel."""
        row = np.clip((y - self.top).astype(np.intp), 0, self.color.shape[0] - 1)
        column = np.clip((x - self.left).astype(np.intp), 0, self.color.shape[1] - 1)
        return self.color[row, column] / 255.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Scan:
    """The scan lines of one moving thing: a patch and a centre per frame, unit direction, offsets of the lines across it."""

    patches: tuple[Patch, ...]
    center_F2: Floats
    direction_2: Floats
    offset_J: Floats
    reach: tuple[float, float]
    backdrop: Backdrop

    def points(self, x_FJX: Floats) -> tuple[Floats, Floats]:
        """Return picture coordinates of positions along the lines (pixels from the centre)."""
        across_2 = np.array([-self.direction_2[1], self.direction_2[0]])
        base_FJ2 = self.center_F2[:, None, :] + self.offset_J[None, :, None] * across_2
        x, y = (base_FJ2[..., None, axis] + x_FJX * self.direction_2[axis] for axis in (0, 1))
        return x, y


@dataclass(frozen=True, eq=False, kw_only=True)
class Outline:
    """Both ends of the thing on every line (pixels from the centre), the first guess of the blur, which lines are usable."""

    start_FJ: Floats
    stop_FJ: Floats
    length_px: float
    usable_FJ: Bools


def cut(frame_HW3: Bytes, x_range: tuple[float, float], y_range: tuple[float, float], margin_px: float = 8.0) -> Patch:
    """Cut a frame to a box (pixels) and prepare it for interpolation."""
    height, width, _ = frame_HW3.shape
    left, right = max(0, int(x_range[0] - margin_px)), min(width, int(x_range[1] + margin_px) + 1)
    top, bottom = max(0, int(y_range[0] - margin_px)), min(height, int(y_range[1] + margin_px) + 1)
    color = frame_HW3[top:bottom, left:right]
    luma = color @ (LUMA_3 / 255.0)
    return Patch(spline=ndimage.spline_filter(luma, order=3, mode="nearest"), luma=luma, color=color, left=left, top=top)


@dataclass(frozen=True, eq=False, kw_only=True)
class Profiles:
    """Change of linear brightness along every line, made positive, at positions `x_X` (pixels from the centre)."""

    x_X: Floats
    change_FJX: Floats


def read_profiles(scan: Scan) -> Profiles:
    """Read how the brightness of every line, luma made linear as if grey, differs from the backdrop."""
    first, last = scan.reach[0] - MARGIN_PX, scan.reach[1] + MARGIN_PX
    x_X = np.linspace(first, last, int(np.clip(last - first, 16, 200)))
    x_FJX, y_FJX = scan.points(np.broadcast_to(x_X, (len(scan.patches), len(scan.offset_J), len(x_X))))
    luma = np.stack([patch.luma_at(x, y, order=1) for patch, x, y in zip(scan.patches, x_FJX, y_FJX, strict=True)])
    change_FJX = srgb_decode(np.clip(luma, 0.0, 1.0)) - srgb_decode(scan.backdrop.at(x_FJX, y_FJX) @ LUMA_3)
    return Profiles(x_X=x_X, change_FJX=change_FJX * np.where(change_FJX.sum(axis=2) < 0, -1.0, 1.0)[..., None])


def find_outline(profiles: Profiles, ramp_px: float | None = None) -> Outline | None:
    """Find both ends of the thing on every line and a first guess of the blur; None where no line can be read.

    An edge's full height is looked for within `ramp_px` of where it begins, or, without it, on its half of the thing.
    """
    shape = profiles.change_FJX.shape
    change_EX = profiles.change_FJX.reshape(-1, shape[2])
    first, rise_first = _half_level(change_EX, profiles.x_X, ramp_px)
    last, rise_last = _half_level(change_EX[:, ::-1], profiles.x_X[::-1], ramp_px)
    usable = np.isfinite(first) & np.isfinite(last) & (last > first + 1.0)
    if int(usable.sum()) < 2:
        return None
    return Outline(
        start_FJ=first.reshape(shape[:2]),
        stop_FJ=last.reshape(shape[:2]),
        length_px=float(np.median(np.concatenate([rise_first[usable], rise_last[usable]]))),
        usable_FJ=usable.reshape(shape[:2]),
    )


def _half_level(change_EX: Floats, x_X: Floats, ramp_px: float | None) -> tuple[Floats, Floats]:
    """Return, per line, where the first edge reaches half its height, and its length if it were a straight ramp."""
    peak_E = change_EX.max(axis=1)
    above = change_EX > np.maximum(0.15 * peak_E, MIN_CHANGE / 2)[:, None]
    first_E = above.argmax(axis=1)
    last_E = len(x_X) - 1 - above[:, ::-1].argmax(axis=1)
    step = abs(float(x_X[1] - x_X[0]))
    stop_E = (first_E + last_E) // 2 + 1
    if ramp_px is not None:
        stop_E = np.minimum(stop_E, first_E + max(2, round(ramp_px / step)))
    level_E = np.where(np.arange(len(x_X)) <= stop_E[:, None], change_EX, 0.0).max(axis=1)
    crossings = [_crossing(change_EX, x_X, share * level_E) for share in (0.2, 0.5, 0.8)]
    rise_E = np.maximum(np.abs(crossings[2] - crossings[0]) / 0.6, 0.5 * step)
    return np.where(level_E > MIN_CHANGE, crossings[1], np.nan), rise_E


def _crossing(change_EX: Floats, x_X: Floats, level_E: Floats) -> Floats:
    index_E = np.clip((change_EX >= level_E[:, None]).argmax(axis=1), 1, len(x_X) - 1)
    rows = np.arange(len(change_EX))
    low_E, high_E = change_EX[rows, index_E - 1], change_EX[rows, index_E]
    share_E = np.clip((level_E - low_E) / np.maximum(high_E - low_E, 1e-6), 0.0, 1.0)
    return np.asarray(x_X[index_E - 1] + share_E * (x_X[index_E] - x_X[index_E - 1]))


def sample_edges(scan: Scan, outline: Outline) -> tuple[tuple[Edges, ...], tuple[NDArray[np.intp], ...]]:
    """Sample coverage across the edges; returns groups of edges and, per group, codes `line * 3 + which end`.

    Lines on which both ramps are apart give two one-sided edges (codes 0 and 1, the second mirrored); others give one edge
    with both ends (code 2).
    """
    length, width_FJ = outline.length_px, outline.stop_FJ - outline.start_FJ
    lean = [_lean(end, scan.offset_J) for end in (outline.start_FJ, outline.stop_FJ)]
    apart = outline.usable_FJ & (width_FJ > 1.3 * length + 6.0)
    near = outline.usable_FJ & ~apart & (width_FJ > 0.15 * length)
    groups: list[Edges] = []
    codes: list[NDArray[np.intp]] = []
    one: list[tuple[Edges, NDArray[np.intp]]] = []
    for which, end_FJ in enumerate((outline.start_FJ, outline.stop_FJ)):
        chosen = apart & (np.abs(lean[which]) < STEEPEST)
        if chosen.any():
            one.append(_one_sided(scan, chosen, end_FJ, width_FJ, length, lean[which], which))
    if one:
        merged = [np.concatenate([getattr(part[0], name) for part in one]) for name in Edges.__dataclass_fields__]
        groups.append(Edges(**dict(zip(Edges.__dataclass_fields__, merged, strict=True))))
        codes.append(np.concatenate([part[1] for part in one]))
    chosen = near & (np.abs(lean[0]) < STEEPEST) & (np.abs(lean[1]) < STEEPEST)
    if int(chosen.sum()) >= 3 and 2 * int(chosen.sum()) >= sum(len(part[1]) for part in one):
        edges, code = _two_sided(scan, chosen, outline, (lean[0] + lean[1]) / 2)
        groups, codes = [*groups, edges], [*codes, code]
    return tuple(groups), tuple(codes)


def _lean(end_FJ: Floats, offset_J: Floats) -> Floats:
    """Return how an edge leans: pixels along the motion per pixel across; large where a neighbour is missing."""
    if len(offset_J) < 3:
        return np.zeros_like(end_FJ)
    return np.asarray(np.nan_to_num(np.gradient(end_FJ, offset_J, axis=1), nan=10 * STEEPEST))


def _one_sided(
    scan: Scan, chosen: Bools, end_FJ: Floats, width_FJ: Floats, length: float, lean_FJ: Floats, which: int
) -> tuple[Edges, NDArray[np.intp]]:
    inward = 1.0 if which == 0 else -1.0
    end_E, width_E = end_FJ[chosen], width_FJ[chosen]
    margin = MARGIN_PX + 0.1 * length
    inner_E = length / 2 + np.minimum(MARGIN_PX + 1.5 + 0.5 * length, width_E - length - 2.0)
    depth_EN = np.linspace(0.0, 1.0, ONE_SIDED_SAMPLES) * (inner_E + length / 2 + margin)[:, None] - length / 2 - margin
    x_EN = end_E[:, None] + inward * depth_EN
    inside_E3 = end_E[:, None] + inward * (np.minimum(length / 2 + 1.0, inner_E - 0.5)[:, None] + np.array([0.5, 1.5, 2.5]))
    y_EN, weight_EN = _coverage(scan, chosen, x_EN, inside_E3, np.ones(len(end_E)))
    edges = Edges(
        x_EN=inward * x_EN,
        y_EN=y_EN,
        weight_EN=weight_EN,
        start_E=inward * end_E,
        stop_E=np.full(len(end_E), math.inf),
        lean_E=lean_FJ[chosen],
    )
    return edges, np.flatnonzero(chosen) * 3 + which


def _two_sided(scan: Scan, chosen: Bools, outline: Outline, lean_FJ: Floats) -> tuple[Edges, NDArray[np.intp]]:
    start_E, stop_E = outline.start_FJ[chosen], outline.stop_FJ[chosen]
    margin = outline.length_px / 2 + MARGIN_PX + 0.05 * outline.length_px
    span_E = stop_E - start_E + 2 * margin
    x_EN = start_E[:, None] - margin + np.linspace(0.0, 1.0, TWO_SIDED_SAMPLES) * span_E[:, None]
    inside_E3 = ((start_E + stop_E) / 2)[:, None] + np.array([-1.0, 0.0, 1.0])
    covered_E = np.minimum(1.0, (stop_E - start_E) / outline.length_px)
    y_EN, weight_EN = _coverage(scan, chosen, x_EN, inside_E3, covered_E)
    edges = Edges(
        x_EN=x_EN,
        y_EN=y_EN,
        weight_EN=weight_EN,
        start_E=start_E,
        stop_E=stop_E,
        lean_E=lean_FJ[chosen],
    )
    return edges, np.flatnonzero(chosen) * 3 + 2


def _coverage(scan: Scan, chosen: Bools, x_EN: Floats, inside_E3: Floats, covered_E: Floats) -> tuple[Floats, Floats]:
    """Return coverage and its weight at positions on the chosen lines.

    `inside_E3` are positions that show the object's colour, covered by the share `covered_E`. Edges without contrast, or
    whose luma does not tell coverage apart, get weight 0.
    """
    frame_E, line_E = np.nonzero(chosen)
    across_2 = np.array([-scan.direction_2[1], scan.direction_2[0]])
    base_E2 = scan.center_F2[frame_E] + scan.offset_J[line_E, None] * across_2

    def place(along: Floats) -> tuple[Floats, Floats]:
        return (
            base_E2[:, :1] + along * scan.direction_2[0],
            base_E2[:, 1:] + along * scan.direction_2[1],
        )

    px_EN, py_EN = place(x_EN)
    sx_E3, sy_E3 = place(inside_E3)
    luma_EN, inside_E33 = np.empty_like(px_EN), np.empty((*sx_E3.shape, 3))
    for frame, patch in enumerate(scan.patches):
        rows = frame_E == frame
        luma_EN[rows] = patch.luma_at(px_EN[rows], py_EN[rows], order=3)
        inside_E33[rows] = patch.color_at(sx_E3[rows], sy_E3[rows])
    behind_EN3 = srgb_decode(scan.backdrop.at(px_EN, py_EN))
    beneath_E3 = srgb_decode(scan.backdrop.at(sx_E3, sy_E3)).mean(axis=1)
    object_E3 = beneath_E3 + (srgb_decode(inside_E33).mean(axis=1) - beneath_E3) / np.maximum(covered_E, 0.05)[:, None]
    return solve_coverage(luma_EN, behind_EN3, object_E3)


def solve_coverage(luma_EN: Floats, behind_EN3: Floats, object_E3: Floats) -> tuple[Floats, Floats]:
    """Invert luma for coverage of a scene-linear colour over a scene-linear backdrop, by Newton's method.

    Weights are luma per coverage, squared for noise in luma alone; here once its slope and once its mean, because dark ends
    would otherwise count a hundredfold.
    """
    toward_EN3 = object_E3[:, None, :] - behind_EN3
    ends = [_luma(behind_EN3 + at * toward_EN3, toward_EN3) for at in (0.0, 1.0)]
    contrast_EN = ends[1][0] - ends[0][0]
    y_EN = np.clip((luma_EN - ends[0][0]) / np.where(np.abs(contrast_EN) > 1e-3, contrast_EN, 1e-3), -0.3, 1.6)
    for _ in range(4):
        luma, slope = _luma(behind_EN3 + y_EN[..., None] * toward_EN3, toward_EN3)
        slope = np.where(np.abs(slope) > 0.02, slope, np.where(slope < 0, -0.02, 0.02))
        y_EN = np.clip(y_EN + (luma_EN - luma) / slope, -0.4, 1.8)
    sign = np.sign(contrast_EN)
    plain_E = (np.abs(contrast_EN) > MIN_CONTRAST).all(axis=1)
    plain_E &= (ends[0][1] * sign > 0.02).all(axis=1) & (ends[1][1] * sign > 0.02).all(axis=1)
    usual_E1 = np.abs(contrast_EN).mean(axis=1, keepdims=True)
    return y_EN, np.where(plain_E[:, None], np.abs(slope) * usual_E1, 0.0)


def _luma(linear_EN3: Floats, toward_EN3: Floats) -> tuple[Floats, Floats]:
    """Return the sRGB-encoded luma of scene-linear colours and its slope along a direction; straight below black."""
    low = linear_EN3 <= 0.0031308
    power = np.power(np.where(low, 1.0, linear_EN3), 1 / 2.4)
    encoded = np.where(low, linear_EN3 * 12.92, 1.055 * power - 0.055)
    slope = np.where(low, 12.92, 1.055 / 2.4 * power / np.where(low, 1.0, linear_EN3))
    return encoded @ LUMA_3, (slope * toward_EN3) @ LUMA_3
