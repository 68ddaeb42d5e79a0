"""Things found in a clip from its pixels alone: what differs from the backdrop, in parts, each cut out at one size.

Shapes: T frames, H rows, W columns, 3 channels (RGB), S the side of a cut-out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import find_objects, label

from scenes.arrays import Bytes

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels, y down
SIDES_PX = 4  # columns at either side that tell a row's background
THING_LEVELS = 30.0  # of 255: what differs more from it is a thing
LEAST_PX = 30  # of a part
SIDE, MARGIN = 32, 1.3  # of a cut-out: pixels, and how much wider than the box it is


def thing_masks(frames_THW3: Bytes) -> NDArray[np.bool_]:
    """Return where a clip differs from what its rows show most at the picture's sides [T, H, W].

    Of whole rows a large thing fills more than half: by those, 89 % of rendered things were found, by the sides 98 %.
    """
    frames = frames_THW3.astype(np.float32)
    sides = np.concatenate([frames[:, :, :SIDES_PX], frames[:, :, -SIDES_PX:]], axis=2)
    return np.asarray(np.abs(frames - np.median(sides, axis=(0, 2))[None, :, None, :]).max(-1) > THING_LEVELS)


def parts_of(mask_HW: NDArray[np.bool_]) -> list[tuple[Box, NDArray[np.bool_]]]:
    """Return the connected parts of a mask, the largest first: their boxes and where they are [H, W]."""
    labels, count = label(mask_HW, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    boxes = find_objects(labels)
    found = []
    for part in sorted(range(1, count + 1), key=lambda part: -sizes[part]):
        if sizes[part] >= LEAST_PX:
            rows, columns = boxes[part - 1]
            box = (float(columns.start), float(rows.start), float(columns.stop), float(rows.stop))
            found.append((box, labels == part))
    return found


def longer_side(box: Box) -> float:
    """Return the longer side of a box, pixels."""
    return max(box[2] - box[0], box[3] - box[1])


def touches_border(box: Box, frame_HW3: Bytes) -> bool:
    """Return whether a box ends at the picture's border: what it holds may go on beyond."""
    height, width = frame_HW3.shape[:2]
    return box[0] <= 0 or box[1] <= 0 or box[2] >= width or box[3] >= height


def overlap(a: Box, b: Sequence[float]) -> float:
    """Return the intersection of two boxes over their union."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return shared / max(both - shared, 1e-6)


def cut_out(frame_HW3: Bytes, box: Box, *, margin: float = MARGIN, shift: tuple[float, float] = (0.0, 0.0)) -> Bytes:
    """Return the square around a box as [S, S, 3], what lies beyond the picture as its border; `shift` is in shares of it."""
    side = longer_side(box) * margin
    reach = int(side) + 2
    x = (box[0] + box[2]) / 2 + shift[0] * side + reach
    y = (box[1] + box[3]) / 2 + shift[1] * side + reach
    wide = Image.fromarray(np.pad(frame_HW3, ((reach, reach), (reach, reach), (0, 0)), mode="edge"))
    square = (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
    return np.asarray(wide.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=square))
