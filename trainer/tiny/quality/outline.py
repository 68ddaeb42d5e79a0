"""How steady the outline of a moving thing is: the overlap of its masks in successive frames, one laid on the other.

Shapes: T frames, H rows, W columns.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import center_of_mass, label, shift

LEAST_PX = 40
FINE = 4  # shifts are tried in steps of a quarter of a pixel around the centres' difference


def outline_overlap(masks_THW: NDArray[np.bool_]) -> float | None:
    """Return the median overlap (intersection over union) of the largest thing's mask with the next frame's.

    None where in no two successive frames a thing is seen whole.
    """
    found = []
    masks = [_largest(mask) for mask in masks_THW]
    for before, after in pairwise(masks):
        if before is not None and after is not None:
            found.append(_aligned_overlap(before, after))
    return float(np.median(found)) if found else None


def _largest(mask_HW: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    """Return the largest connected part of a mask, None if it is tiny or touches the picture's border."""
    parts, count = label(mask_HW)
    if not count:
        return None
    part = parts == 1 + int(np.bincount(parts[parts > 0] - 1).argmax())
    border = part[0].any() or part[-1].any() or part[:, 0].any() or part[:, -1].any()
    return None if border or part.sum() < LEAST_PX else part.astype(np.float64)


def _aligned_overlap(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    down, across = np.subtract(center_of_mass(after), center_of_mass(before))
    steps = np.arange(-2, 3) / FINE
    return max(_overlap(shift(before, (down + y, across + x), order=1) > 0.5, after > 0.5) for y in steps for x in steps)


def _overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))
