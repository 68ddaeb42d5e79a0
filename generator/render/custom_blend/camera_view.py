"""Looks at a custom .blend through its camera: small renders tell what clips, what is seen of a thing, and what it costs.

A thing's pixels are those that change when the camera no longer sees it, which finds every way of not being in the picture.
Import it only in a process that renders.

Array legend: H rows (top first), W columns, 3 channels (scene-linear), N pixels.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from generator.recipe.render_settings import RenderSettings
from generator.render.custom_blend.opening import NormalisedScene
from generator.render.engine import cycles
from generator.render.engine.regions import Box
from scenes.arrays import Floats32
from scenes.axes.temperature.probe import nearest_to
from scenes.blender import set_exposure, set_format, set_lens
from scenes.camera import focal_px, unproject
from scenes.errors import InputError
from scenes.families.blend_annotation import AnnotatedObject, RenderCost
from scenes.spec import Camera, Shot
from scenes.white import REFERENCE_KELVIN, mired

Mask = NDArray[np.bool_]

LONGEST_PX, LEAST_PX, SMALL = 128, 64, 40
SAMPLES = (16, 96)  # fewer and more, so that the cost of one is known
CHANGED = 0.02  # relative: less is noise
LEAST_PIXELS = 4  # of a thing, for it to be seen
MOST_CLIPPED = 0.05  # share of the picture, or of a named thing, from which labels are read wrongly
DARK = 0.002  # linear: what is darker has no colour
MOST_CAST_MIRED, MOST_SHIFT_MIRED = 5.0, 2.5  # of a patch from 6500 K, as far as readings may be off; and between frames
MOST_TINT = 0.05  # log ratio, across the locus
SPOT = 0.8  # of the side of the largest square: its rim is mixed with what lies beside it


@dataclass(frozen=True, kw_only=True)
class CameraLook:
    """What was seen: the clipped share of the picture, the pixels of each named thing by name, the frame, and the cost.

    `coloured` says why no temperature can be verified on the object that stands still.
    """

    clipped: float
    seen: dict[str, Mask]
    frames: dict[str, int]
    cost: RenderCost
    shot: Shot
    coloured: str


class Viewer:
    """Renders frames of a normalised scene, sharp and small, in the proportions that it is set to."""

    def __init__(self, normalised: NormalisedScene, fps: int, focus_m: float, longest_px: int = LONGEST_PX) -> None:
        """Set the scene's format and samples; `focus_m` is the distance of the plane of focus."""
        self.normalised, self._focus_m = normalised, focus_m
        self.shot = _shot(normalised.scene, fps, longest_px)
        set_format(normalised.scene, self.shot)
        set_exposure(normalised.scene, None, fps)
        set_lens(normalised.camera, None, focus_m)
        cycles.set_output(normalised.scene, RenderSettings(fidelity="pbr"), 0, 1)
        self._whole = Box(left=0, top=0, right=self.shot.width, bottom=self.shot.height)

    def resized(self, longest_px: int) -> Viewer:
        """Return a viewer of the same scene at another size; this one is of no use from then on."""
        return Viewer(self.normalised, self.shot.fps, self._focus_m, longest_px)

    @property
    def megapixels(self) -> float:
        """The size of its pictures."""
        return self.shot.width * self.shot.height / 1e6

    def picture(self, frame: int, samples: int = SAMPLES[0]) -> Floats32:
        """Return a frame's linear pixels `[H, W, 3]`, with the file's exposure."""
        with cycles.Scratch() as scratch:
            made_HW3 = cycles.render_frame(self.normalised.scene, frame, self._whole, samples, scratch)
        return made_HW3 * np.float32(self.normalised.gain)

    def of_thing(self, thing: Any, frame: int, with_it_HW3: Floats32) -> Mask:
        """Return which pixels of a frame show a thing `[H, W]`."""
        thing.visible_camera = False
        try:
            without_HW3 = self.picture(frame)
        finally:
            thing.visible_camera = True
        gap_HW = np.abs(with_it_HW3 - without_HW3).max(axis=-1)
        return np.asarray(gap_HW > CHANGED * np.maximum(with_it_HW3.max(axis=-1), 0.02))


def look(
    viewer: Viewer, moving: list[Any], still: list[Any], frames: list[int], open_s: float, beside: Sequence[int] = ()
) -> CameraLook:
    """Look at some frames; raises InputError where a named thing is seen in none, or where too much is clipped.

    The colour of what stands still is looked at in the frames `beside` as well.
    """
    pictures = {frame: viewer.picture(frame) for frame in frames}
    seen, where = {}, {}
    for thing in (*moving, *still):
        for frame in frames:
            mask_HW = viewer.of_thing(thing, frame, pictures[frame])
            if mask_HW.sum() >= LEAST_PIXELS:
                seen[thing.name], where[thing.name] = mask_HW, frame
                break
        else:
            words = ", ".join(map(str, frames))
            raise InputError(
                f"'{thing.name}' is nowhere to be seen (frames {words}): it is behind something, outside the picture, or not "
                "rendered; mark an object that is seen"
            )
    worst_HW3 = max(pictures.values(), key=_clipped)
    parts = {"the picture": worst_HW3} | {f"'{name}'": pictures[where[name]][mask_HW] for name, mask_HW in seen.items()}
    for what, pixels_3 in parts.items():
        share = _clipped(pixels_3)
        if share > MOST_CLIPPED:
            brightest = float(np.quantile(pixels_3.max(axis=-1), 1 - MOST_CLIPPED / 5))
            stops = float(np.floor(10 * np.log2(viewer.normalised.gain / brightest)) / 10)
            raise InputError(
                f"{share:.1%} of {what} is clipped (at most {MOST_CLIPPED:.0%} may be): pictures are plain sRGB, no filmic "
                f"view; set Color Management > Exposure to about {stops:.1f}, save, and mark the file again"
            )
    pictures |= {frame: viewer.picture(frame) for frame in beside if frame not in pictures}
    coloured = next(filter(None, (_why_coloured(thing.name, seen[thing.name], pictures) for thing in still)), "")
    return CameraLook(
        clipped=_clipped(worst_HW3),
        seen=seen,
        frames=where,
        cost=_cost(viewer, frames, open_s),
        shot=viewer.shot,
        coloured=coloured,
    )


def _why_coloured(name: str, mask_HW: Mask, pictures: Mapping[int, Floats32]) -> str:
    """Return why a thing, meant to be neutral, shows another colour than the light of 6500 K, or not always the same."""
    colors_F3 = [np.median(picture_HW3[mask_HW], axis=0) for picture_HW3 in pictures.values()]
    found = [nearest_to(color_3) for color_3 in colors_F3 if color_3.max() > DARK]
    if not found:
        return f"the patch '{name}' is black"
    mired_F, tint_F = (np.array(part) for part in zip(*found, strict=True))
    if float(np.ptp(mired_F)) > MOST_SHIFT_MIRED:
        low, high = 1e6 / mired_F.max(), 1e6 / mired_F.min()
        return f"the light or colour of the patch '{name}' changes, as from {high:.0f} K to {low:.0f} K"
    middle = float(np.median(mired_F))
    if abs(middle - mired(REFERENCE_KELVIN)) > MOST_CAST_MIRED:
        return f"the patch '{name}' looks like a neutral under {1e6 / middle:.0f} K in the file's own light, not under 6500 K"
    if float(tint_F.max()) > MOST_TINT:
        return f"the patch '{name}' is not grey in the file's own light"
    return ""


def spot_of(annotated: AnnotatedObject, mask_HW: Mask, camera: Camera, shot: Shot, depth_m: float) -> AnnotatedObject:
    """Return a patch with the largest upright square of it that is seen, as a place and a size (metres) at its depth."""
    padded_HW = np.pad(mask_HW, 1)
    inside_HW = ndimage.distance_transform_cdt(padded_HW, metric="chessboard")[1:-1, 1:-1]
    row, column = (int(index) for index in np.unravel_index(int(np.argmax(inside_HW)), inside_HW.shape))
    side_px = SPOT * (2 * float(inside_HW[row, column]) - 1)
    place_3 = unproject(camera, shot, column + 0.5, row + 0.5, depth_m)
    x, y, z = (float(f"{value:.9g}") for value in place_3)
    size_m = float(f"{side_px * depth_m / focal_px(camera, shot):.9g}")
    return annotated.model_copy(update={"spot_m": (x, y, z), "spot_size_m": size_m})


def _shot(scene: Any, fps: int, longest_px: int) -> Shot:
    width, height = scene.render.resolution_x, scene.render.resolution_y
    scale = longest_px / max(width, height)
    if max(width, height) >= LEAST_PX:  # smaller ones are enlarged: `_cost` compares pictures of two sizes
        scale = min(1.0, scale)
    return Shot(width=max(16, round(width * scale)), height=max(16, round(height * scale)), fps=fps, frames=1)


def _clipped(pixels_3: Floats32) -> float:
    return float((pixels_3 > 1.0).any(axis=-1).mean())


def _cost(viewer: Viewer, frames: list[int], open_s: float) -> RenderCost:
    """Return what a frame costs in CPU seconds, from one at fewer and one at more samples, and one of few pixels."""
    frame = frames[len(frames) // 2]
    few_s, many_s = (_cpu_s(viewer, frame, samples) for samples in SAMPLES)
    small = viewer.resized(SMALL)
    small_s = _cpu_s(small, frame, SAMPLES[0])
    megapixels = viewer.megapixels
    sample_s = max(0.0, many_s - few_s) / (SAMPLES[1] - SAMPLES[0]) / megapixels
    all_s = max(0.0, few_s - small_s) / (megapixels - small.megapixels)
    return RenderCost(
        open_s=round(open_s, 4),
        frame_s=round(max(0.0, small_s - all_s * small.megapixels), 4),
        pixel_s=round(max(0.0, all_s - SAMPLES[0] * sample_s), 4),
        sample_s=round(sample_s, 6),
    )


def _cpu_s(viewer: Viewer, frame: int, samples: int) -> float:
    start_s = time.process_time()
    viewer.picture(frame, samples)
    return time.process_time() - start_s
