"""Truth as arrays, read when it is asked for: from a version's objects, or from any other place that gives bytes by path.

Array legend: T frames, H rows (top first), W columns; 2 pixels (x right, y down), 3 coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from generator.recipe.truth_section import Pass
from generator.truth.pass_files import UNKNOWN, VISIBLE, read_depth, read_flow, read_instances, read_normals, read_sharp
from generator.truth.scene_file import SceneTruth, read_scene_file
from generator.truth.truth_names import SCENE_FILE, frame_file
from scenes.arrays import Floats32
from scenes.errors import InputError

Masks = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Flow:
    """Optical flow in pixels, float32 `[T-1, H, W, 2]`, 0 where unknown; masks are bool `[T-1, H, W]`.

    `forward[t]` leads from frame t to t+1, `backward[t]` from frame t+1 to t. `*_seen`: the vector's end is seen in the other
    frame; `*_known`: there is a vector, though its end may be hidden or outside the picture.
    """

    forward: Floats32
    backward: Floats32
    forward_seen: Masks
    backward_seen: Masks
    forward_known: Masks
    backward_known: Masks


class TruthReader:
    """The truth of one scene. `files` are digests by path inside `truth/<scene>/`, `read` gives an object's bytes."""

    def __init__(
        self, files: Mapping[str, str], read: Callable[[str], bytes], where: str, size: Callable[[str], int] | None = None
    ) -> None:
        if SCENE_FILE not in files:
            raise InputError(
                f"{where} has no ground truth; add [truth] to the recipe and build again (no clip is rendered anew)"
            )
        self._files, self._read, self._where, self._size = files, read, where, size

    @cached_property
    def scene(self) -> SceneTruth:
        """Cameras, objects, boxes and tracks."""
        return read_scene_file(self.file(SCENE_FILE))

    def depth(self, along: Literal["axis", "distance"] = "axis") -> Floats32:
        """Return depth in metres `[T, H, W]`, inf where nothing is: along the optical axis, or as distance from the camera.

        Raises InputError for another way to measure.
        """
        if along not in ("axis", "distance"):
            raise InputError(f"depth along '{along}'; give 'axis' (along the optical axis) or 'distance' (from the camera)")
        depth_THW = np.stack([read_depth(data) for data in self._frames("depth", "depth")])
        if along == "distance":
            for depth_HW, camera in zip(depth_THW, self.scene.cameras, strict=True):
                (focal, _, center_x), (_, focal_y, center_y), _ = camera.intrinsics
                across_W = (np.arange(depth_HW.shape[1]) + 0.5 - center_x) / focal
                down_H = (np.arange(depth_HW.shape[0]) + 0.5 - center_y) / focal_y
                depth_HW *= np.sqrt(1.0 + across_W[None, :] ** 2 + down_H[:, None] ** 2).astype(np.float32)
        return depth_THW

    def normals(self, space: Literal["world", "camera"] = "world") -> Floats32:
        """Return unit normals `[T, H, W, 3]`, 0 where nothing is: in world or camera axes (X right, Y down, Z forward).

        Raises InputError for another space.
        """
        if space not in ("world", "camera"):
            raise InputError(f"normals in '{space}'; give 'world' or 'camera'")
        normals_THW3 = np.stack([read_normals(data) for data in self._frames("normals", "normals")])
        if space == "camera":
            for normals_HW3, camera in zip(normals_THW3, self.scene.cameras, strict=True):
                normals_HW3[...] = normals_HW3 @ np.array(camera.world_to_camera_opencv, dtype=np.float32)[:3, :3].T
        return normals_THW3

    def instances(self) -> NDArray[np.uint16]:
        """Return object ids `[T, H, W]`, the same thing's the same in every frame; 0 is the background."""
        return np.stack([read_instances(data) for data in self._frames("instances", "instances")])

    def flow(self) -> Flow:
        """Return flow to the next and to the previous frame, and which of it is seen; a still has none (`[0, H, W, 2]`)."""
        forward_T, ahead_T = self._vectors("flow_forward", 0)
        backward_T, back_T = self._vectors("flow_backward", 1)
        return Flow(
            forward=forward_T,
            backward=backward_T,
            forward_seen=ahead_T == VISIBLE,
            backward_seen=back_T == VISIBLE,
            forward_known=ahead_T != UNKNOWN,
            backward_known=back_T != UNKNOWN,
        )

    def sharp(self) -> NDArray[np.uint8]:
        """Return the clip as a pinhole without exposure time sees it, sRGB `[T, H, W, 3]`."""
        return np.stack([read_sharp(data) for data in self._frames("sharp", "sharp")])

    def _vectors(self, kind: str, first: int) -> tuple[Floats32, NDArray[np.uint8]]:
        self.check("flow")
        shape = (0, self.scene.height, self.scene.width)
        steps = range(first, first + len(self.scene.times_s) - 1)
        pairs = [read_flow(self.file(frame_file(kind, frame))) for frame in steps]
        if not pairs:
            return np.zeros((*shape, 2), dtype=np.float32), np.zeros(shape, dtype=np.uint8)
        return np.stack([vectors for vectors, _ in pairs]), np.stack([state for _, state in pairs])

    def _frames(self, name: Pass, kind: str) -> list[bytes]:
        self.check(name)
        return [self.file(frame_file(kind, frame)) for frame in range(len(self.scene.times_s))]

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of all files, in order."""
        return tuple(sorted(self._files))

    def size(self, path: str) -> int:
        """Return a file's size in bytes."""
        return len(self.file(path)) if self._size is None else self._size(self._files[path])

    def check(self, name: Pass) -> None:
        """Raise InputError where a pass is not kept."""
        if name not in self.scene.passes:
            kept = ", ".join(self.scene.passes) or "boxes and cameras alone"
            raise InputError(f"{self._where} has no '{name}'; its recipe keeps {kept}: add '{name}' to truth.passes and build")

    def file(self, path: str) -> bytes:
        """Return the bytes of a file by its path inside `truth/<scene>/`. Raises InputError where it is missing."""
        if path not in self._files:
            raise InputError(f"{self._where} has no truth/{path}; the version is not whole: build it again")
        return self._read(self._files[path])
