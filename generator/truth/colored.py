"""Truth as pictures for people: every pass in colours that are made to be told apart, sRGB uint8 `[T, H, W, 3]`.

Depth: near is yellow, far is violet. Flow: the hue is the direction (red: right), white is rest; hidden ends are dark; the last
frame has the backward flow. Normals: right is red, up is green, towards the camera is blue.

Array legend: T frames, H rows, W columns; 2 pixels, 3 coordinates or channels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from generator.truth.pass_files import id_colors
from generator.truth.read_truth import TruthReader
from generator.truth.scene_file import SceneTruth
from scenes.arrays import Bytes

EMPTY = 24  # the grey of the background


def depth_colors(reader: TruthReader) -> Bytes:
    """Return depth in the colours of plasma, by its inverse, over the whole clip's range."""
    from matplotlib import colormaps

    with np.errstate(divide="ignore"):
        near_THW = 1.0 / reader.depth()
    shown_THW = near_THW > 0
    low, high = (near_THW[shown_THW].min(), near_THW[shown_THW].max()) if shown_THW.any() else (0.0, 1.0)
    scaled_THW = (near_THW - low) / max(high - low, 1e-9)
    colors_THW3 = np.rint(colormaps["plasma"](scaled_THW)[..., :3] * 255).astype(np.uint8)
    colors_THW3[~shown_THW] = EMPTY
    return colors_THW3


def flow_colors(reader: TruthReader) -> Bytes:
    """Return flow as hue and saturation, scaled by the clip's largest vector."""
    flow = reader.flow()
    if not len(flow.forward):
        return np.full((1, reader.scene.height, reader.scene.width, 3), 255, dtype=np.uint8)
    vectors_THW2 = np.concatenate([flow.forward, -flow.backward[-1:]])
    seen_THW = np.concatenate([flow.forward_seen, flow.backward_seen[-1:]])
    length_THW = np.hypot(vectors_THW2[..., 0], vectors_THW2[..., 1])
    share_THW1 = (length_THW / max(float(length_THW.max()), 1e-6))[..., None]
    angle_THW = np.arctan2(vectors_THW2[..., 1], vectors_THW2[..., 0])
    turns = np.array([0.0, 2 * np.pi / 3, 4 * np.pi / 3])
    hue_THW3 = np.clip(0.5 + np.cos(angle_THW[..., None] - turns), 0.0, 1.0)
    colors_THW3 = (1.0 - share_THW1) + share_THW1 * hue_THW3
    colors_THW3[~seen_THW] *= 0.45
    return np.rint(colors_THW3 * 255).astype(np.uint8)


def normal_colors(reader: TruthReader) -> Bytes:
    """Return normals in camera axes as colours: right is red, up is green, towards the camera is blue."""
    normals_THW3 = reader.normals("camera") * np.array([1.0, -1.0, -1.0], dtype=np.float32)
    colors_THW3 = np.rint((normals_THW3 + 1.0) / 2.0 * 255).clip(0, 255).astype(np.uint8)
    colors_THW3[~normals_THW3.any(axis=-1)] = EMPTY
    return colors_THW3


def instance_colors(reader: TruthReader) -> Bytes:
    """Return every id in its own colour, as the files have it."""
    return np.asarray(id_colors()[reader.instances() % 256])


def box_colors(reader: TruthReader) -> Bytes:
    """Return the boxes of visible pixels (thick) and of whole outlines (thin), over the dimmed sharp clip where it is kept."""
    scene = reader.scene
    shape = (len(scene.times_s), scene.height, scene.width, 3)
    ground_THW3 = reader.sharp() // 2 if "sharp" in scene.passes else np.full(shape, EMPTY, dtype=np.uint8)
    found = []
    for frame, picture_HW3 in enumerate(ground_THW3):
        picture, lines = Image.fromarray(picture_HW3), box_lines(scene, frame, 1.0)
        picture.paste(lines, mask=lines)
        found.append(np.asarray(picture))
    return np.stack(found)


def box_lines(scene: SceneTruth, frame: int, factor: float) -> Image.Image:
    """Return one frame's boxes as lines in the colours of the ids on a transparent picture, `factor` times its size."""
    width, height = round(scene.width * factor), round(scene.height * factor)
    image = Image.new("RGBA", (width, height))
    draw, thick = ImageDraw.Draw(image), max(1, width // 200)
    for thing in scene.objects:
        now, color = thing.frames[frame], tuple(int(part) | 64 for part in id_colors()[thing.id % 256])
        for box, line in ((now.box_full, 1), (now.box_visible, thick)):
            if box is not None and now.box_visible is not None:
                left, top, right, bottom = np.clip(np.multiply(box, factor), -1, (width, height) * 2)
                draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=color, width=line)
    return image


COLORED: dict[str, Callable[[TruthReader], Bytes]] = {
    "depth": depth_colors,
    "flow": flow_colors,
    "instances": instance_colors,
    "normals": normal_colors,
    "sharp": lambda reader: reader.sharp(),
    "boxes": box_colors,
}
