"""Lossless frames as bytes: PNG of what is displayed, EXR of what is rendered.

Array legend: H rows (top first), W columns, 3 channels.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def png_bytes(srgb_HW3: NDArray[np.uint8]) -> bytes:
    """Return an 8-bit sRGB picture as PNG."""
    import imageio.v3

    return bytes(imageio.v3.imwrite("<bytes>", np.ascontiguousarray(srgb_HW3), extension=".png", plugin="pillow"))


def exr_bytes(linear_HW3: NDArray[np.float32]) -> bytes:
    """Return scene-linear Rec.709 as a half-float, ZIP-compressed EXR; values beyond half's range are clipped to it."""
    import OpenEXR

    limit = float(np.finfo(np.float16).max)
    half_HW3 = np.clip(linear_HW3, -limit, limit).astype(np.float16)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    picture = OpenEXR.File(header, {"RGB": np.ascontiguousarray(half_HW3)})
    with _scratch_path() as path:  # the library writes to paths only
        picture.write(str(path))
        return path.read_bytes()


@contextmanager
def _scratch_path() -> Iterator[Path]:
    """Give a path to write to: in memory on Linux, so that a killed process leaves nothing behind, temporary elsewhere."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("stopdown-still")
        try:
            yield Path(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        return
    with tempfile.TemporaryDirectory(prefix="stopdown-") as folder:
        yield Path(folder) / "still"
