"""Renders one scene at any optics, doing each piece of work once: still scenes, still parts, and optics seen before.

Making a renderer loads Blender, so only render workers do. One renderer is alive at a time per process.
Array legend: T frames, H rows (top first), W columns, 3 channels (scene-linear Rec.709).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from generator.errors import RenderError
from generator.recipe.render_settings import RenderSettings, Softness
from generator.recipe.truth_section import Pass
from generator.render.engine.regions import Box, merged, swept_box, swept_px
from generator.render.engine.start import start_blender
from generator.truth.flow import Geometry
from generator.truth.stage import SpecStage, Stage
from scenes.arrays import Floats32
from scenes.primitives import mesh
from scenes.spec import Optics, SceneSpec

if TYPE_CHECKING:
    from generator.render.custom_blend.truth_stage import BlendStage
    from generator.render.engine.cycles import Scratch


BOX_OVERHEAD_PX = 1000  # what starting a render costs, in pixels rendered: 4 ms against 4 us (seen on bpy 5.0.1)
BLURRED_PX = 4.0
CACHE_BYTES = 256 * 2**20


class SceneRenderer:
    """One scene, built once in Blender and rendered at any optics."""

    def __init__(self, scene: SceneSpec, settings: RenderSettings, threads: int, files: Path | None = None) -> None:
        """Load Blender if need be, empty it and build the scene, or open its file; main thread only.

        `files` is the folder of the .blend files by sha256; needed only for scenes that are rendered from one.
        """
        start_blender(threads)
        from generator.render.custom_blend import opening  # these import bpy, which `start_blender` must do first
        from generator.render.engine import cycles
        from scenes import blender

        self._blender, self._cycles = blender, cycles
        self.scene = scene
        self.settings = settings
        self._gain = 1.0
        if scene.blend is None:
            self._handle = self._blender.build(scene, settings.fidelity)
        else:
            assert files is not None, "custom .blend files are rendered from a dataset's store"
            self._handle, self._gain = opening.open_custom(files / f"{scene.blend.sha256}.blend", scene, scene.blend)
        self._first_frame = scene.blend.first_frame if scene.blend is not None else 0
        self._cycles.set_output(self._handle.scene, settings, content_seed(scene, settings), threads)
        self._movers = tuple(solid for solid in scene.solids if solid.motion.moves)
        self._vertices = {solid.kind: mesh(solid.kind).vertices_V3 for solid in self._movers}
        self._frames: dict[Optics, Floats32] = {}
        self._plates: dict[float | None, Floats32] = {}
        self._whole = Box(left=0, top=0, right=scene.shot.width, bottom=scene.shot.height)

    def frames(self, optics: Optics) -> Floats32:
        """Return the clip's scene-linear frames `[T, H, W, 3]`, read-only; rendered only if these optics are new.

        Raises RenderError with what Blender printed, or if the exposure is longer than the frame interval.
        """
        check_exposure(optics, self.scene.shot.fps)
        key = optics if self._moves else Optics(f_number=optics.f_number)
        if key not in self._frames:
            made_THW3 = self._render(key)
            while self._frames and (len(self._frames) + 1) * made_THW3.nbytes > CACHE_BYTES:
                self._frames.pop(next(iter(self._frames)))
            self._frames[key] = made_THW3
        return self._frames[key]

    def stage(self) -> Stage:
        """Return the scene's objects by id, their poses and the camera, frame by frame."""
        return self._blend_stage or SpecStage(self.scene)

    @cached_property
    def _blend_stage(self) -> BlendStage | None:
        if self.scene.blend is None:
            return None
        from generator.render.custom_blend.truth_stage import BlendStage  # imports bpy

        return BlendStage(self._handle.scene, self._handle.camera, self.scene, self._first_frame)

    def geometries(self, passes: tuple[Pass, ...] = ()) -> Iterator[Geometry]:
        """Yield what every frame's pixels show, as a pinhole without exposure time sees it: ids, points, normals.

        Raises InputError where a .blend of one's own cannot give one of these passes of truth.
        An id is the place in `scene.solids` plus 1. What stands still is rendered once: there is no light.
        """
        from generator.render.engine.geometry_passes import geometry_passes, render_geometry  # imports bpy

        shot, scene = self.scene.shot, self._handle.scene
        self._blender.set_optics(self._handle, Optics())
        if self._blend_stage is not None:
            self._blend_stage.check(passes)
            layer = next(layer for layer in scene.view_layers if layer.use)
            with geometry_passes(scene, layer, self._blend_stage.objects), self._cycles.Scratch() as scratch:
                for frame in range(shot.frames):
                    yield render_geometry(scene, self._first_frame + frame, self._whole, scratch)
            return
        objects = [self._handle.objects[solid.name] for solid in self.scene.solids]
        with geometry_passes(scene, scene.view_layers[0], objects), self._cycles.Scratch() as scratch:
            boxes_T = [self._boxes_of(frame, Optics()) for frame in range(shot.frames)]
            still: Geometry | None = None
            if any(self._whole not in boxes for boxes in boxes_T):
                self._show_movers(False)
                still = render_geometry(scene, 0, self._whole, scratch)
                self._show_movers(True)
            for frame, boxes in enumerate(boxes_T):
                if still is None or self._whole in boxes:
                    yield render_geometry(scene, frame, self._whole, scratch)
                    continue
                yield pasted(still, [(box, render_geometry(scene, frame, box, scratch)) for box in boxes])

    def save_blend(self, path: Path, optics: Optics, color_temperature_k: float | None = None) -> None:
        """Save the scene at these optics and under this cast as a .blend file that renders the same clip."""
        check_exposure(optics, self.scene.shot.fps)
        self._blender.set_optics(self._handle, optics)
        scene = self._handle.scene
        scene.cycles.samples = self.settings.samples_for("sharp")
        scene.render.use_border = scene.render.use_crop_to_border = False
        scene.render.filepath = "//frame_####.exr"
        self._show_movers(True)
        scene.frame_set(0)
        self._blender.set_cast(scene, color_temperature_k)
        self._cycles.save_blend(path)
        self._blender.set_cast(scene, None)

    def _render(self, optics: Optics) -> Floats32:
        shot = self.scene.shot
        self._blender.set_optics(self._handle, optics)
        with self._cycles.Scratch() as scratch:
            if not self._moves:
                still_HW3 = self._picture(0, self._whole, optics, scratch)
                return np.broadcast_to(still_HW3, (shot.frames, *still_HW3.shape))
            boxes_T = self.boxes(optics)
            frames_THW3 = np.empty((shot.frames, shot.height, shot.width, 3), dtype=np.float32)
            for frame, boxes in enumerate(boxes_T):
                if self._whole not in boxes:
                    frames_THW3[frame] = self._plate(optics, scratch)
                for box in boxes:
                    frames_THW3[frame, box.top : box.bottom, box.left : box.right] = self._picture(frame, box, optics, scratch)
        frames_THW3.setflags(write=False)
        return frames_THW3

    def _picture(self, frame: int, box: Box, optics: Optics, scratch: Scratch) -> Floats32:
        samples = self.settings.samples_for(self._softness(frame, optics))
        picture_HW3 = self._cycles.render_frame(self._handle.scene, self._first_frame + frame, box, samples, scratch)
        return picture_HW3 if self._gain == 1.0 else picture_HW3 * np.float32(self._gain)

    def _softness(self, frame: int, optics: Optics) -> Softness:
        """Say what softens the edges of a frame: then the same noise takes fewer samples."""
        if optics.f_number is not None:
            return "lens"
        moved_px = [swept_px(self.scene, solid, frame, optics) for solid in self._movers]
        return "motion" if moved_px and min(moved_px) >= BLURRED_PX else "sharp"

    def boxes(self, optics: Optics) -> list[list[Box]]:
        """Return the boxes to render in each frame: around what moves, over the plate, where that costs less than all."""
        shot = self.scene.shot
        everything = [[self._whole]] * shot.frames
        if self.settings.fidelity != "flat" or not self.settings.regions:  # light carries what moves to everywhere
            return everything
        boxes_T = [self._boxes_of(frame, optics) for frame in range(shot.frames)]
        cost_px = sum(box.area + BOX_OVERHEAD_PX for boxes in boxes_T for box in boxes)
        if optics.f_number is not None and optics.f_number not in self._plates and self._has_still_parts:
            cost_px += self._whole.area  # a plate of this clip's own; without a lens it serves the whole scene
        return boxes_T if cost_px < shot.frames * self._whole.area else everything

    def _boxes_of(self, frame: int, optics: Optics) -> list[Box]:
        swept = [swept_box(self.scene, solid, self._vertices[solid.kind], frame, optics) for solid in self._movers]
        boxes = merged([box for box in swept if box is not None], BOX_OVERHEAD_PX)
        cost_px = sum(box.area + BOX_OVERHEAD_PX for box in boxes)
        return boxes if cost_px < self._whole.area else [self._whole]

    def _plate(self, optics: Optics, scratch: Scratch) -> Floats32:
        """Return the picture of all that stands still, `[H, W, 3]`, made once per f-number."""
        if not self._has_still_parts:
            return backdrop(self.scene)
        if optics.f_number not in self._plates:
            self._show_movers(False)
            self._blender.set_optics(self._handle, Optics(f_number=optics.f_number))
            self._plates[optics.f_number] = self._picture(0, self._whole, optics, scratch)
            self._show_movers(True)
            self._blender.set_optics(self._handle, optics)
        return self._plates[optics.f_number]

    @property
    def _moves(self) -> bool:
        """Whether frames may differ: a custom .blend may hold more motion than its annotation tells."""
        return bool(self._movers) or self.scene.blend is not None

    @property
    def _has_still_parts(self) -> bool:
        return len(self._movers) < len(self.scene.solids)

    def _show_movers(self, shown: bool) -> None:
        for solid in self._movers:
            self._handle.objects[solid.name].hide_render = not shown


def pasted(still: Geometry, parts: Sequence[tuple[Box, Geometry]]) -> Geometry:
    """Return a frame's geometry: what stands still, and boxes of the frame over it."""
    whole = Geometry(ids_HW=still.ids_HW.copy(), points_HW3=still.points_HW3.copy(), normals_HW3=still.normals_HW3.copy())
    for box, part in parts:
        rows, columns = slice(box.top, box.bottom), slice(box.left, box.right)
        whole.ids_HW[rows, columns] = part.ids_HW
        whole.points_HW3[rows, columns] = part.points_HW3
        whole.normals_HW3[rows, columns] = part.normals_HW3
    return whole


def backdrop(scene: SceneSpec) -> Floats32:
    """Return the scene's backdrop alone, `[H, W, 3]`: straight from bottom to top, taken at pixel centres."""
    shot, colors = scene.shot, scene.background
    bottom_3, top_3 = np.asarray(colors.bottom), np.asarray(colors.top)
    heights_H1 = 1.0 - (np.arange(shot.height)[:, None] + 0.5) / shot.height
    rows_H3 = (bottom_3 + (top_3 - bottom_3) * heights_H1).astype(np.float32)
    return np.broadcast_to(rows_H3[:, None, :], (shot.height, shot.width, 3))


def check_exposure(optics: Optics, fps: float) -> None:
    """Raise RenderError if the exposure is not above 0, or longer than the frame interval."""
    interval_s = 1.0 / fps
    if optics.exposure_s is not None and not 0.0 < optics.exposure_s <= interval_s * (1 + 1e-6):
        raise RenderError(
            f"exposure {optics.exposure_s} s; allowed is more than 0 and at most the frame interval {interval_s} s; "
            "shorten the exposure or lower the frame rate"
        )


def content_seed(scene: SceneSpec, settings: RenderSettings) -> int:
    """Return the Cycles seed: a hash of the content, so the noise depends on neither control, order nor worker."""
    return (zlib.crc32(scene.model_dump_json().encode()) ^ settings.seed) & 0x7FFFFFFF
