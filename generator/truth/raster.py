"""Casting the ray of every pixel's centre against the meshes of a spec, by numpy alone: no Blender has a part in it.

It proves what Blender rendered, and says how much of an object one would see if nothing stood before it.
Array legend: F triangles, 3 corners or coordinates, C candidates (a pixel in the box around a triangle), H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from generator.truth.view_camera import ViewCamera
from scenes.arrays import Floats
from scenes.primitives import Face

Ints = NDArray[np.int64]
NEAR_M = 1e-3  # as Blender's camera is set
_MOST_CANDIDATES = 4_000_000  # at once: what is held stays some hundred megabytes


def triangles(vertices_V3: Floats, faces: Sequence[Face]) -> Floats:
    """Return a mesh as triangles `[F, 3, 3]`; a face of more than four corners is cut around its middle, as a star allows."""
    found: list[Floats] = []
    for face in faces:
        corners_K3 = vertices_V3[list(face)]
        if len(face) <= 4:
            found += [corners_K3[[0, step, step + 1]] for step in range(1, len(face) - 1)]
        else:
            middle_3 = corners_K3.mean(axis=0)
            found += [np.stack([middle_3, one, two]) for one, two in zip(corners_K3, np.roll(corners_K3, -1, 0), strict=True)]
    return np.array(found)


def clipped(local_F33: Floats) -> Floats:
    """Return triangles in camera coordinates less what lies nearer than the near plane."""
    behind_F3 = local_F33[:, :, 2] < NEAR_M
    if not behind_F3.any():
        return local_F33
    kept = [local_F33[~behind_F3.any(axis=1)]]
    for triangle_33 in local_F33[behind_F3.any(axis=1) & ~behind_F3.all(axis=1)]:
        outline: list[Floats] = []
        for one_3, two_3 in zip(triangle_33, np.roll(triangle_33, -1, axis=0), strict=True):
            if one_3[2] >= NEAR_M:
                outline.append(one_3)
            if (one_3[2] < NEAR_M) != (two_3[2] < NEAR_M):
                share = (NEAR_M - one_3[2]) / (two_3[2] - one_3[2])
                outline.append(one_3 + share * (two_3 - one_3))
        kept += [np.stack([outline[0], outline[step], outline[step + 1]])[None] for step in range(1, len(outline) - 1)]
    return np.concatenate(kept)


def depth_of_mesh(world_F33: Floats, camera: ViewCamera, height: int, width: int) -> Floats:
    """Return the depth (metres along the axis) of the nearest triangle at every pixel's centre `[H, W]`; inf where none is."""
    depth_P = np.full(height * width, np.inf)
    local_F33 = clipped(camera.local(world_F33.reshape(-1, 3)).reshape(-1, 3, 3))
    if not len(local_F33):
        return depth_P.reshape(height, width)
    image_F32 = camera.pixels(local_F33.reshape(-1, 3)).reshape(-1, 3, 2)
    inverse_F3 = 1.0 / local_F33[:, :, 2]
    low_F2 = np.clip(np.ceil(image_F32.min(axis=1) - 0.5), 0, (width, height)).astype(np.int64)
    high_F2 = np.clip(np.floor(image_F32.max(axis=1) - 0.5) + 1, 0, (width, height)).astype(np.int64)
    size_F2 = np.maximum(high_F2 - low_F2, 0)
    counts_F = size_F2[:, 0] * size_F2[:, 1]
    shown_F = np.flatnonzero(counts_F)
    for part in _parts(shown_F, counts_F):
        _draw(depth_P, image_F32[part], inverse_F3[part], low_F2[part], size_F2[part, 0], counts_F[part], width)
    return depth_P.reshape(height, width)


def _parts(shown_F: Ints, counts_F: Ints) -> list[Ints]:
    """Cut triangles into runs of a bounded number of candidates."""
    ends_F = np.cumsum(counts_F[shown_F])
    cuts = np.searchsorted(ends_F, np.arange(_MOST_CANDIDATES, int(ends_F[-1]) if len(ends_F) else 0, _MOST_CANDIDATES))
    return [part for part in np.split(shown_F, cuts) if len(part)]


def _draw(
    depth_P: Floats, image_F32: Floats, inverse_F3: Floats, low_F2: Ints, width_F: Ints, counts_F: Ints, width: int
) -> None:
    """Put triangles into a depth picture: of every pixel in the box around each, those inside, the nearest last."""
    owner_C = np.repeat(np.arange(len(counts_F)), counts_F)
    place_C = np.arange(len(owner_C)) - np.repeat(np.cumsum(counts_F) - counts_F, counts_F)
    x_C, y_C = low_F2[owner_C, 0] + place_C % width_F[owner_C], low_F2[owner_C, 1] + place_C // width_F[owner_C]
    a_F2, b_F2, c_F2 = image_F32[:, 0], image_F32[:, 1], image_F32[:, 2]
    area_F = _cross(b_F2 - a_F2, c_F2 - a_F2)
    with np.errstate(divide="ignore", invalid="ignore"):
        point_C2 = np.stack([x_C + 0.5, y_C + 0.5], axis=1)
        one_C = _cross(c_F2[owner_C] - b_F2[owner_C], point_C2 - b_F2[owner_C]) / area_F[owner_C]
        two_C = _cross(a_F2[owner_C] - c_F2[owner_C], point_C2 - c_F2[owner_C]) / area_F[owner_C]
        three_C = 1.0 - one_C - two_C
        inside_C = (one_C >= 0) & (two_C >= 0) & (three_C >= 0)  # False for a triangle seen from its edge
        weights_C3 = np.stack([one_C, two_C, three_C], axis=1)[inside_C]
        found_C = 1.0 / np.einsum("ck,ck->c", weights_C3, inverse_F3[owner_C[inside_C]])
    pixel_C = (y_C * width + x_C)[inside_C]
    order_C = np.argsort(-found_C, kind="stable")  # numpy keeps the last of several values for one place
    pixel_C, found_C = pixel_C[order_C], found_C[order_C]
    nearest_P = np.full(len(depth_P), np.inf)
    nearest_P[pixel_C] = found_C
    np.minimum(depth_P, nearest_P, out=depth_P)


def _cross(one_C2: Floats, two_C2: Floats) -> Floats:
    return one_C2[:, 0] * two_C2[:, 1] - one_C2[:, 1] * two_C2[:, 0]
