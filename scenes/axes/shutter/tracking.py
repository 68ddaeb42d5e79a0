"""Blind tracking for the shutter probe: what moves in a clip, where, and how fast, from sRGB frames alone.

Three steps, on a decimated picture of at most `DETECTION_PX` pixels a side: a backdrop (a smooth surface through what most of
the picture agrees on, or the median over time where the backdrop has texture), the connected regions that differ from it,
and the straight, even tracks that link those regions from frame to frame.

Array legend: T frames, H rows, W columns, h rows and w columns of the decimated picture, 3 channels (sRGB in [0, 1]),
P points, C polynomial terms, 2 picture coordinates (x right, y down; pixel centres at half-integers).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from scenes.arrays import Bytes, Floats

DETECTION_PX = 170
DEGREE = 3
SMOOTH_WITHIN = 3.5 / 255  # a pixel this near the smooth surface agrees with it
SMOOTH_SHARE = 0.4  # the share of the picture that must agree for the backdrop to count as smooth
MEDIAN_FRAMES = 5  # a textured backdrop is the median over at least so many frames
BLOBS_PER_FRAME = 10


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How regions are told from the backdrop and linked.

    Of a region only what differs by `core` of its own strongest change counts; a centre may be off its line by `slack` of the
    region's size; a track needs `frames_least` frames and the share `frames_share` of them all.
    """

    core: float
    slack: float
    frames_least: int
    frames_share: float


RENDERED = Manner(core=0.0, slack=0.05, frames_least=2, frames_share=0.6)
# In generated videos things have haze round them, breathe, and come in late.
GENERATED = Manner(core=0.35, slack=0.12, frames_least=3, frames_share=0.0)


@dataclass(frozen=True, eq=False, kw_only=True)
class Backdrop:
    """The picture without what moves: a polynomial surface, or a picture; `noise` is its usual misfit (sRGB, [0, 1])."""

    width: int
    height: int
    noise: float
    surface_C3: Floats | None
    picture_HW3: Bytes | None

    def at(self, x_P: Floats, y_P: Floats) -> Floats:
        """Return the sRGB colour `[..., 3]` in [0, 1] at picture coordinates (pixels), any shape."""
        if self.surface_C3 is not None:
            return np.asarray(_terms(x_P / self.width, y_P / self.height) @ self.surface_C3)
        assert self.picture_HW3 is not None
        column = np.clip(np.floor(x_P).astype(np.intp), 0, self.width - 1)
        row = np.clip(np.floor(y_P).astype(np.intp), 0, self.height - 1)
        return self.picture_HW3[row, column] / 255.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Blob:
    """A connected region of one frame that differs from the backdrop; `points_P2` are its pixels (pixel coordinates)."""

    frame: int
    center_2: Floats
    area_px: float
    color_3: Floats
    points_P2: Floats


@dataclass(frozen=True, eq=False, kw_only=True)
class Track:
    """A blob through time: `start_2` at frame 0 (extrapolated if need be), px per frame, and the blobs it links."""

    start_2: Floats
    velocity_2: Floats
    velocity_error: float
    blobs: tuple[Blob, ...]

    @property
    def speed_px_per_frame(self) -> float:
        """The length of the velocity."""
        return float(math.hypot(*self.velocity_2))

    def center_at(self, frame: int) -> Floats:
        """Return the fitted centre (pixels) in a frame."""
        return self.start_2 + self.velocity_2 * frame


def _terms(u_P: Floats, v_P: Floats) -> Floats:
    return np.stack([u_P**i * v_P**j for i in range(DEGREE + 1) for j in range(DEGREE + 1 - i)], axis=-1)


def decimation(height: int, width: int) -> int:
    """Return the step at which pixels are picked for detection."""
    return max(1, round(max(height, width) / DETECTION_PX))


def find_backdrop(frames_THW3: Bytes) -> Backdrop | None:
    """Return the backdrop, or None where the picture has texture and the frames are too few to see behind what moves."""
    frames, height, width, _ = frames_THW3.shape
    step = decimation(height, width) * 2 if max(height, width) > DETECTION_PX // 2 else 1
    picked = frames_THW3[:, step // 2 :: step, step // 2 :: step]
    still_hw3 = (np.median(picked, axis=0) if frames > 1 else picked[0]) / 255.0
    rows, columns = np.meshgrid(*(np.arange(n) * step + step // 2 + 0.5 for n in still_hw3.shape[:2]), indexing="ij")
    terms_PC = _terms(columns.ravel() / width, rows.ravel() / height)
    color_P3 = still_hw3.reshape(-1, 3)
    rim_P = (np.minimum(columns, width - columns) < 0.07 * width) | (np.minimum(rows, height - rows) < 0.07 * height)
    misfit_P, surface_C3 = _robust_surface(terms_PC, color_P3, rim_P.ravel().astype(np.float64))
    agrees_P = misfit_P < SMOOTH_WITHIN
    if agrees_P.mean() >= SMOOTH_SHARE:
        noise = float(np.median(misfit_P[agrees_P]))
        return Backdrop(width=width, height=height, noise=noise, surface_C3=surface_C3, picture_HW3=None)
    if frames < MEDIAN_FRAMES:
        return None
    picture_HW3 = np.partition(frames_THW3, frames // 2, axis=0)[frames // 2]
    moved = np.abs(picked.astype(np.int16) - picture_HW3[step // 2 :: step, step // 2 :: step]).max(axis=-1)
    noise = float(np.median(moved)) / 255.0
    return Backdrop(width=width, height=height, noise=noise, surface_C3=None, picture_HW3=picture_HW3)


def _robust_surface(terms_PC: Floats, color_P3: Floats, weight_P: Floats, rounds: int = 8) -> tuple[Floats, Floats]:
    """Fit a surface by reweighted least squares from a first weighting; returns the misfit per point and the coefficients."""
    ridge = np.eye(terms_PC.shape[1]) * 1e-7
    for index in range(rounds):
        weighted_PC = terms_PC * weight_P[:, None]
        share = max(float(weight_P.sum()), 1e-9)
        surface_C3 = np.linalg.solve(weighted_PC.T @ terms_PC / share + ridge, weighted_PC.T @ color_P3 / share)
        misfit_P = np.abs(color_P3 - terms_PC @ surface_C3).max(axis=1)
        scale = max(1.5 / 255, min(20.0 / 255 / (index + 1), 2.5 * float(np.median(misfit_P))))
        weight_P = 1.0 / (1.0 + (misfit_P / scale) ** 4)
    return misfit_P, surface_C3


def find_blobs(frames_THW3: Bytes, backdrop: Backdrop, manner: Manner = RENDERED) -> list[list[Blob]]:
    """Return, per frame, the regions that differ from the backdrop and do not touch the frame's rim, largest first."""
    frames, height, width, _ = frames_THW3.shape
    step = decimation(height, width)
    picked = frames_THW3[:, step // 2 :: step, step // 2 :: step]
    rows, columns = np.meshgrid(*(np.arange(n) * step + step // 2 + 0.5 for n in picked.shape[1:3]), indexing="ij")
    change_Thw3 = picked * np.float32(1 / 255) - backdrop.at(columns, rows).astype(np.float32)
    size_Thw = np.abs(change_Thw3).max(axis=-1)
    mask_Thw = size_Thw > max(9.0 / 255, 6.0 * backdrop.noise)
    flat = np.zeros((3, 3, 3), dtype=bool)
    flat[1] = True
    if manner.core > 0:
        mask_Thw &= size_Thw > manner.core * _own_peak(size_Thw, mask_Thw, flat)
    labels_Thw, _ = ndimage.label(ndimage.binary_dilation(mask_Thw, flat), structure=flat)
    found: list[list[Blob]] = [[] for _ in range(frames)]
    for label, box in enumerate(ndimage.find_objects(labels_Thw), start=1):
        frame, top, left = (part.start for part in box)
        inside = (labels_Thw[box][0] == label) & mask_Thw[box][0]
        row, column = np.nonzero(inside)
        if len(row) < 6:
            continue
        touches = row.min() + top == 0 or column.min() + left == 0
        if touches or row.max() + top == picked.shape[1] - 1 or column.max() + left == picked.shape[2] - 1:
            continue
        weight_P = size_Thw[box][0][inside].astype(np.float64)
        points_P2 = (np.stack([column + left, row + top], axis=1) * step + step // 2 + 0.5).astype(np.float64)
        found[frame].append(
            Blob(
                frame=frame,
                center_2=weight_P @ points_P2 / weight_P.sum(),
                area_px=float(len(row) * step * step),
                color_3=np.asarray(change_Thw3[box][0][inside].mean(axis=0), dtype=np.float64),
                points_P2=points_P2,
            )
        )
    return [sorted(blobs, key=lambda blob: -blob.area_px)[:BLOBS_PER_FRAME] for blobs in found]


def _own_peak(size_Thw: NDArray[np.float32], mask_Thw: NDArray[np.bool_], flat_333: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return, at every masked pixel, the 95th percentile of the change in its own region; 0 elsewhere."""
    labels_Thw, count = ndimage.label(mask_Thw, structure=flat_333)
    peak = np.zeros(count + 1, dtype=np.float32)
    for label, box in enumerate(ndimage.find_objects(labels_Thw), start=1):
        peak[label] = np.percentile(size_Thw[box][labels_Thw[box] == label], 95)
    return np.asarray(peak[labels_Thw])


def find_tracks(blobs_T: list[list[Blob]], min_travel_px: float, manner: Manner = RENDERED) -> list[Track]:
    """Return the straight, even tracks through the blobs that travel at least so far, the longest-lived first."""
    free = [list(blobs) for blobs in blobs_T]
    need = max(manner.frames_least, math.ceil(manner.frames_share * len(blobs_T)))
    tracks: list[Track] = []
    while len(tracks) < BLOBS_PER_FRAME:
        chains = [
            _chain(free, earlier, later, manner.slack)
            for frame in range(len(free) - 1)
            for earlier in free[frame]
            for later in free[frame + 1]
            if _alike(earlier, later)
        ]
        good = [chain for chain in chains if len(chain) >= need]
        if not good:
            break
        best = min((_fit(chain) for chain in good), key=lambda track: (-len(track.blobs), track.velocity_error))
        for blob in best.blobs:
            free[blob.frame].remove(blob)
        if best.speed_px_per_frame * (len(blobs_T) - 1) >= min_travel_px:
            tracks.append(best)
    return tracks


def _alike(one: Blob, other: Blob) -> bool:
    near = float(np.abs(one.color_3 - other.color_3).max()) < 0.15
    return near and 0.5 < one.area_px / other.area_px < 2.0


def _chain(free: list[list[Blob]], earlier: Blob, later: Blob, slack: float) -> tuple[Blob, ...]:
    """Return the blobs that lie where the step between two says, one a frame."""
    step_2 = later.center_2 - earlier.center_2
    tolerance = 1.0 + slack * math.sqrt(earlier.area_px)
    chain: list[Blob] = []
    for frame, blobs in enumerate(free):
        ahead = frame - earlier.frame
        expected_2 = earlier.center_2 + step_2 * ahead
        near = [(float(np.hypot(*(blob.center_2 - expected_2))), blob) for blob in blobs if _alike(blob, earlier)]
        if near:
            distance, blob = min(near, key=lambda pair: pair[0])
            if distance <= tolerance * (1 + 0.5 * abs(ahead)):
                chain.append(blob)
    return tuple(chain)


def _fit(chain: tuple[Blob, ...]) -> Track:
    """Fit a straight, even track by least squares; the velocity's standard error is in px per frame."""
    frame_K = np.array([blob.frame for blob in chain], dtype=np.float64)
    center_K2 = np.stack([blob.center_2 for blob in chain])
    offset_K = frame_K - frame_K.mean()
    spread = float(offset_K @ offset_K)
    velocity_2 = offset_K @ center_K2 / spread
    start_2 = center_K2.mean(axis=0) - velocity_2 * frame_K.mean()
    misfit_K2 = center_K2 - start_2 - frame_K[:, None] * velocity_2
    freedom = max(1, 2 * len(chain) - 4)
    error = math.sqrt(max(float((misfit_K2**2).sum()) / freedom, 0.02) / spread)
    return Track(start_2=start_2, velocity_2=velocity_2, velocity_error=error, blobs=chain)
