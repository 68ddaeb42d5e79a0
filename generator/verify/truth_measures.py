"""What proves a scene's truth: each measure holds files against the spec or against each other and returns one number.

Nothing here renders: rays are cast in numpy against the spec's meshes, which Blender has no part in.
Array legend: T frames, H rows, W columns; N pixels; 2 pixels (x, y), 3 coordinates or channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, maximum_filter, minimum_filter

from generator.truth.raster import depth_of_mesh, triangles
from generator.truth.read_truth import Flow, TruthReader
from generator.truth.stage import SpecStage
from generator.truth.tracks import visible_boxes
from scenes.arrays import Floats
from scenes.camera import project
from scenes.motion import location_at, vertices_at
from scenes.palette import srgb_decode, srgb_encode
from scenes.primitives import mesh
from scenes.spec import SceneSpec

LEVELS = 255.0
MOVING_PX = 0.1
LEAST_PIXELS = 50  # a median of fewer says nothing


class TruthAtHand:
    """One scene's truth, decoded once for all measures, and its spec; `flat` where the picture has a closed form."""

    def __init__(self, reader: TruthReader, spec: SceneSpec, *, flat: bool) -> None:
        self.reader, self.spec = reader, spec
        self.scene = reader.scene
        self.flat = flat and spec.blend is None

    def has(self, *names: str) -> bool:
        """Return whether all these passes are kept."""
        return set(names) <= set(self.scene.passes)

    @property
    def known(self) -> bool:
        """Whether the spec says what stands in the scene: it does not for a .blend of one's own."""
        return self.spec.blend is None

    @cached_property
    def ids_THW(self) -> NDArray[np.uint16]:
        """Object ids."""
        return self.reader.instances()

    @cached_property
    def flow(self) -> Flow:
        """Flow, forward and backward."""
        return self.reader.flow()

    @cached_property
    def sharp_THW3(self) -> NDArray[np.uint8]:
        """The sharp clip."""
        return self.reader.sharp()

    @cached_property
    def shade_THW(self) -> Floats | None:
        """What Lambert's law makes of every pixel's normal in `flat`, as a share of the albedo."""
        if not self.flat or not self.has("normals"):
            return None
        light = self.spec.light
        toward_3 = np.asarray(light.direction) / np.linalg.norm(light.direction)
        facing_THW = np.maximum(self.reader.normals().astype(np.float64) @ toward_3, 0.0)
        return light.strength * (light.ambient + (1.0 - light.ambient) * facing_THW)

    @cached_property
    def filled_THW(self) -> NDArray[np.bool_] | None:
        """Pixels that, with all around them, belong to one object: no edge is in them."""
        if not self.has("instances"):
            return None
        ids_THW = self.ids_THW
        return maximum_filter(ids_THW, size=(1, 5, 5)) == minimum_filter(ids_THW, size=(1, 5, 5))


def photometric(truth: TruthAtHand) -> float | None:
    """Return the median difference, in levels of 255, of frame t and frame t+1 warped back, over what moves and is seen."""
    if not truth.has("flow", "sharp") or len(truth.scene.times_s) < 2:
        return None
    moving: list[Floats] = []
    everywhere: list[Floats] = []
    for frame, (here_HW3, there_HW3) in enumerate(pairwise(truth.sharp_THW3)):
        vectors_HW2 = truth.flow.forward[frame]
        seen_HW = truth.flow.forward_seen[frame]
        if truth.filled_THW is not None:
            seen_HW = seen_HW & truth.filled_THW[frame]
        row, column = np.nonzero(seen_HW)
        vectors_N2 = vectors_HW2[row, column]
        expected_N3 = _sampled(there_HW3, row + vectors_N2[:, 1], column + vectors_N2[:, 0])
        if truth.shade_THW is not None:  # what turns is lit anew
            shade_N = _sampled(truth.shade_THW[frame + 1][..., None], row + vectors_N2[:, 1], column + vectors_N2[:, 0])[:, 0]
            ratio_N = truth.shade_THW[frame][row, column] / np.maximum(shade_N, 1e-6)
            lit_N = truth.ids_THW[frame][row, column] > 0 if truth.has("instances") else np.ones(len(row), dtype=bool)
            linear_N3 = (
                srgb_decode(expected_N3 / LEVELS) * np.where(lit_N & _matte(truth, frame, row, column), ratio_N, 1.0)[:, None]
            )
            expected_N3 = srgb_encode(linear_N3) * LEVELS
        apart_N = np.abs(expected_N3 - here_HW3[row, column]).max(axis=1)
        everywhere.append(apart_N)
        moving.append(apart_N[np.hypot(*vectors_N2.T) > MOVING_PX])
    found_N = np.concatenate(moving)
    if len(found_N) < LEAST_PIXELS:
        found_N = np.concatenate(everywhere)
    return float(np.median(found_N)) if len(found_N) else None


def depth_error(truth: TruthAtHand) -> float | None:
    """Return the largest relative difference from the ray that is cast against the spec, where both see the same object."""
    if not truth.has("depth", "instances") or not truth.known:
        return None
    depth_THW, worst = truth.reader.depth(), 0.0
    for frame, (ids_HW, cast_HW) in _casts(truth):
        same_HW = (ids_HW == truth.ids_THW[frame]) & (ids_HW > 0)
        if same_HW.any():
            worst = max(worst, float(np.abs(depth_THW[frame][same_HW] / cast_HW[same_HW] - 1.0).max()))
        empty_HW = truth.ids_THW[frame] == 0
        if not np.isinf(depth_THW[frame][empty_HW]).all() or np.isinf(depth_THW[frame][~empty_HW]).any():
            return float("inf")
    return worst


def wrong_ids(truth: TruthAtHand) -> float | None:
    """Return the share of pixels whose id is not that of the object that the ray meets."""
    if not truth.has("instances") or not truth.known:
        return None
    return max(float((ids_HW != truth.ids_THW[frame]).mean()) for frame, (ids_HW, _) in _casts(truth))


def color_error(truth: TruthAtHand) -> float | None:
    """Return, in levels of 255, how far the sharp picture is from the named object's albedo under the scene's light.

    The median over each object's pixels, and the worst of the objects; `flat` alone has this closed form.
    """
    if truth.shade_THW is None or not truth.has("instances", "sharp") or truth.filled_THW is None:
        return None
    worst = None
    for number, solid in enumerate(truth.spec.solids, 1):
        mask_THW = (truth.ids_THW == number) & truth.filled_THW
        if mask_THW.sum() < LEAST_PIXELS:
            continue
        shade_N = truth.shade_THW[mask_THW] if not solid.material.emission else np.full(mask_THW.sum(), solid.material.emission)
        expected_N3 = srgb_encode(shade_N[:, None] * np.asarray(solid.material.albedo)) * LEVELS
        apart = float(np.median(np.abs(expected_N3 - truth.sharp_THW3[mask_THW]).max(axis=1)))
        worst = apart if worst is None else max(worst, apart)
    return worst


def box_error(truth: TruthAtHand) -> float | None:
    """Return in pixels how far boxes are from what they bound: visible pixels, and the outline of the spec's mesh."""
    worst: float | None = None
    objects = truth.scene.objects
    for frame in range(len(truth.scene.times_s)) if truth.has("instances") else ():
        for found, thing in zip(visible_boxes(truth.ids_THW[frame], len(objects)), objects, strict=True):
            said = thing.frames[frame].box_visible
            if (found is None) != (said is None):
                return float("inf")
            if found is not None and said is not None:
                worst = max(worst or 0.0, float(np.abs(np.subtract(found, said)).max()))
    for thing, solid in zip(objects, truth.spec.solids, strict=False) if truth.known else ():
        for frame, time_s in enumerate(truth.scene.times_s):
            points_V3 = vertices_at(mesh(solid.kind).vertices_V3, solid.scale_m, solid.motion, time_s)
            pixels_V2, depth_V = project(truth.spec.camera, truth.spec.shot, points_V3)
            now = thing.frames[frame]
            if (depth_V <= 0.01).any() or now.box_full is None:
                continue
            full = (*pixels_V2.min(axis=0), *pixels_V2.max(axis=0))
            worst = max(worst or 0.0, float(np.abs(np.subtract(full, now.box_full)).max()))
            if now.box_visible is not None:  # it may not reach beyond; a tip thinner than a pixel may be missing from it
                beyond = np.subtract(now.box_visible, full) * (-1, -1, 1, 1)
                worst = max(worst, float(beyond.max()))
    return worst


def center_error(truth: TruthAtHand) -> float | None:
    """Return in pixels how far the written cameras and poses put an object's centre from where the spec's camera sees it."""
    if not truth.known:
        return None
    worst = 0.0
    for thing, solid in zip(truth.scene.objects, truth.spec.solids, strict=True):
        for now, camera, time_s in zip(thing.frames, truth.scene.cameras, truth.scene.times_s, strict=True):
            pixels_12, depth_1 = project(truth.spec.camera, truth.spec.shot, location_at(solid.motion, time_s)[None])
            if depth_1[0] <= 0.01:
                continue
            for world_to_camera in (
                np.array(camera.world_to_camera_opencv),
                np.diag([1.0, -1.0, -1.0, 1.0]) @ np.linalg.inv(np.array(camera.matrix_world_blender)),
            ):
                local_3 = (world_to_camera @ np.array(now.object_to_world)[:, 3])[:3]
                image_3 = np.array(camera.intrinsics) @ (local_3 / local_3[2])
                worst = max(worst, float(np.linalg.norm(image_3[:2] - pixels_12[0])))
            if now.center_px is not None:
                worst = max(worst, float(np.linalg.norm(np.subtract(now.center_px, pixels_12[0]))))
    return worst


def round_trip(truth: TruthAtHand) -> float | None:
    """Return the median distance in pixels of what moves from where forward and then backward flow lead it."""
    if not truth.has("flow") or len(truth.scene.times_s) < 2:
        return None
    found: list[Floats] = []
    for frame, (there_HW2, back_HW2) in enumerate(zip(truth.flow.forward, truth.flow.backward, strict=True)):
        seen_HW = truth.flow.forward_seen[frame] & (np.hypot(there_HW2[..., 0], there_HW2[..., 1]) > MOVING_PX)
        row, column = np.nonzero(seen_HW)
        vectors_N2 = there_HW2[row, column]
        returned_N2 = vectors_N2 + _sampled(back_HW2, row + vectors_N2[:, 1], column + vectors_N2[:, 0])
        found.append(np.hypot(*returned_N2.T))
    together_N = np.concatenate(found)
    return float(np.median(together_N)) if len(together_N) >= LEAST_PIXELS else None


# By name: the measure, its unit, the most it may be, and what it says.
MEASURES: dict[str, tuple[Callable[[TruthAtHand], float | None], str, float, str]] = {
    "photometric": (photometric, "/255", 2.0, "flow warps the sharp frames onto each other"),
    "round trip": (round_trip, "px", 0.1, "forward and backward flow agree"),
    "depth": (depth_error, "relative", 1e-3, "depth is that of rays cast against the spec"),
    "ids": (wrong_ids, "of pixels", 1e-3, "ids tile the picture as rays cast against the spec do"),
    "color": (color_error, "/255", 2.0, "ids and normals give the colours of the sharp picture"),
    "boxes": (box_error, "px", 1.0, "boxes are tight"),
    "centers": (center_error, "px", 0.1, "cameras put centres where the spec does"),
}


def _casts(truth: TruthAtHand) -> Iterator[tuple[int, tuple[NDArray[np.uint16], Floats]]]:
    """Yield the first, the middle and the last frame, with ids and depth of the rays cast against the spec."""
    last = len(truth.scene.times_s) - 1
    for frame in sorted({0, last // 2, last}):
        yield frame, cast(truth.spec, frame)


def cast(spec: SceneSpec, frame: int) -> tuple[NDArray[np.uint16], Floats]:
    """Return the id and the depth of what the ray of every pixel's centre meets first, `[H, W]` each."""
    stage, height, width = SpecStage(spec), spec.shot.height, spec.shot.width
    depth_HW, ids_HW = np.full((height, width), np.inf), np.zeros((height, width), dtype=np.uint16)
    for number, (thing, pose_44) in enumerate(zip(stage.things, stage.poses(frame), strict=True), 1):
        assert thing.vertices_V3 is not None
        world_F33 = triangles(thing.vertices_V3, thing.faces) @ pose_44[:3, :3].T + pose_44[:3, 3]
        its_HW = depth_of_mesh(world_F33, stage.camera(frame), height, width)
        nearer_HW = its_HW < depth_HW
        ids_HW[nearer_HW], depth_HW[nearer_HW] = number, its_HW[nearer_HW]
    return ids_HW, depth_HW


def _sampled(picture_HWC: NDArray[np.generic], row_N: Floats, column_N: Floats) -> Floats:
    """Return a picture between its pixels' centres, bilinear, `[N, C]`."""
    channels = np.moveaxis(picture_HWC.astype(np.float64), -1, 0)
    return np.stack([map_coordinates(one_HW, [row_N, column_N], order=1, mode="nearest") for one_HW in channels], axis=1)


def _matte(truth: TruthAtHand, frame: int, row: NDArray[np.intp], column: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return which pixels show what is lit, not what glows."""
    lit = np.array([False, *(not solid.material.emission for solid in truth.spec.solids)])
    return lit[truth.ids_THW[frame][row, column]]
