"""Optical flow of rigid things, exact: the point that a pixel shows is carried with its object and projected again.

Array legend: H rows, W columns; N pixels of them; 2 pixels (x, y); 3 coordinates (metres).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from generator.truth.pass_files import FLOW_LIMIT_PX, HIDDEN, UNKNOWN, VISIBLE
from generator.truth.view_camera import ViewCamera
from scenes.arrays import Floats

_FAR_M = 1e6  # where the background is
LEAST_COSINE = 0.05  # a surface seen at a sharper angle than 87 degrees
FOOTPRINT_PX = 1.5  # how far apart, on the surface, the two ends may be: half a pixel's diagonal and the rounding of both


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometry:
    """What the pixels of a frame show: object ids (0: background), points and normals in the world, float32 `[H, W, 3]`."""

    ids_HW: NDArray[np.uint16]
    points_HW3: NDArray[np.float32]
    normals_HW3: NDArray[np.float32]

    def depth(self, camera: ViewCamera) -> NDArray[np.float32]:
        """Return depth along the optical axis `[H, W]` in metres; inf where nothing is."""
        depth_HW = (self.points_HW3 @ camera.rotation_33[2] + camera.world_to_camera_44[2, 3]).astype(np.float32)
        depth_HW[self.ids_HW == 0] = np.inf
        return depth_HW


@dataclass(frozen=True, kw_only=True, eq=False)
class Moment:
    """A frame's geometry, camera, and object poses by id - 1."""

    geometry: Geometry
    camera: ViewCamera
    poses: Sequence[Floats]


def flow_between(here: Moment, there: Moment) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return where every pixel of one frame goes in another, `[H, W, 2]` in pixels, and the state of its vector `[H, W]`.

    The state says whether the end is seen there, is hidden or out of the picture, or is not known: behind the camera, or
    further away than the file format holds. The background is at infinity and moves with the camera's rotation alone.
    """
    ids_HW, ids_there_HW = here.geometry.ids_HW, there.geometry.ids_HW
    # What stands still before a camera that stands still: its end is its start, seen where the same thing is seen.
    state_HW = np.where(ids_HW == ids_there_HW, VISIBLE, HIDDEN).astype(np.uint8)
    flow_HW2 = np.zeros((*ids_HW.shape, 2), dtype=np.float32)
    row_N, column_N = np.nonzero(_moved(here, there))
    if len(row_N):
        vectors_N2, state_N = _flow_of(here, there, row_N, column_N)
        flow_HW2[row_N, column_N] = vectors_N2
        state_HW[row_N, column_N] = state_N
    return flow_HW2, state_HW


def _moved(here: Moment, there: Moment) -> NDArray[np.bool_]:
    """Return the pixels `[H, W]` of what moves, before the camera or with it."""
    ids_HW = here.geometry.ids_HW
    if not np.array_equal(here.camera.world_to_camera_44, there.camera.world_to_camera_44):
        return np.ones(ids_HW.shape, dtype=bool)
    moves = [not np.array_equal(one_44, two_44) for one_44, two_44 in zip(here.poses, there.poses, strict=True)]
    return np.array([False, *moves])[ids_HW]


def _flow_of(
    here: Moment, there: Moment, row_N: NDArray[np.int64], column_N: NDArray[np.int64]
) -> tuple[Floats, NDArray[np.uint8]]:
    """Return the vectors `[N, 2]` of some pixels, and the state of each."""
    height, width = here.geometry.ids_HW.shape
    ids_N = here.geometry.ids_HW[row_N, column_N]
    points_N3 = here.geometry.points_HW3[row_N, column_N].astype(np.float64)
    carried_N3 = points_N3.copy()
    for number in np.unique(ids_N[ids_N > 0]):
        its_N = ids_N == number
        step_44 = there.poses[number - 1] @ np.linalg.inv(here.poses[number - 1])
        carried_N3[its_N] = points_N3[its_N] @ step_44[:3, :3].T + step_44[:3, 3]
    if (empty_N := ids_N == 0).any():  # a point at infinity: its direction alone
        far_N3 = here.camera.rays(height, width)[row_N[empty_N], column_N[empty_N]] * _FAR_M
        points_N3[empty_N], carried_N3[empty_N] = here.camera.location_3 + far_N3, there.camera.location_3 + far_N3
    local_N3 = there.camera.local(carried_N3)
    end_N2, depth_N = there.camera.pixels(local_N3), local_N3[:, 2]
    flow_N2 = end_N2 - here.camera.pixels(here.camera.local(points_N3))
    known_N = (depth_N > 0) & np.isfinite(flow_N2).all(axis=1) & (np.abs(flow_N2) < FLOW_LIMIT_PX).all(axis=1)
    flow_N2[~known_N] = 0.0
    state_N = np.where(known_N, HIDDEN, UNKNOWN).astype(np.uint8)
    seen = np.flatnonzero(known_N & (end_N2 >= 0).all(axis=1) & (end_N2 < (width, height)).all(axis=1))
    column, row = np.floor(end_N2[seen]).astype(np.int64).T
    same = there.geometry.ids_HW[row, column] == ids_N[seen]
    seen, row, column = seen[same], row[same], column[same]
    state_N[seen[_meets(there, carried_N3[seen], depth_N[seen], ids_N[seen], row, column)]] = VISIBLE
    return flow_N2, state_N


def _meets(
    there: Moment,
    carried_N3: Floats,
    depth_N: Floats,
    ids_N: NDArray[np.uint16],
    row_N: NDArray[np.int64],
    column_N: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Return whether the surface that is seen at the end is the one that was carried there: within a pixel's footprint."""
    found_N3 = there.geometry.points_HW3[row_N, column_N].astype(np.float64)
    normals_N3 = there.geometry.normals_HW3[row_N, column_N].astype(np.float64)
    sight_N3 = found_N3 - there.camera.location_3
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine_N = np.abs(np.einsum("nk,nk->n", normals_N3, sight_N3)) / np.linalg.norm(sight_N3, axis=1)
    footprint_N = FOOTPRINT_PX * depth_N / there.camera.intrinsics_33[0, 0] / np.maximum(cosine_N, LEAST_COSINE)
    return (ids_N == 0) | (np.linalg.norm(carried_N3 - found_N3, axis=1) <= footprint_N)
