"""Lossless frames as bytes: PNG of what is displayed, EXR of what is rendered.

Array legend: H rows (top first), W columns, 3 channels.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from generator.errors import DamagedError


def png_bytes(srgb_HW3: NDArray[np.uint8]) -> bytes:
    """Return an 8-bit sRGB picture as PNG."""
    import imageio.v3

    return bytes(imageio.v3.imwrite("<bytes>", np.ascontiguousarray(srgb_HW3), extension=".png", plugin="pillow"))


def exr_bytes(linear_HW3: NDArray[np.float32]) -> bytes:
    """Return scene-linear Rec.709 as a half-float, ZIP-compressed EXR; values beyond half's range are clipped to it."""
    limit = float(np.finfo(np.float16).max)
    return exr_channels({"RGB": np.clip(linear_HW3, -limit, limit).astype(np.float16)})


def exr_channels(channels: Mapping[str, NDArray[np.float16]]) -> bytes:
    """Return a ZIP-compressed EXR of named channels `[H, W]` (or "RGB", `[H, W, 3]`)."""
    import OpenEXR

    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    picture = OpenEXR.File(header, {name: np.ascontiguousarray(pixels) for name, pixels in channels.items()})
    with _scratch_path() as path:  # the library writes to paths only
        picture.write(str(path))
        return path.read_bytes()


def read_exr(data: bytes) -> dict[str, NDArray[np.float32]]:
    """Return the channels `[H, W]` of an EXR by name; raises DamagedError."""
    import OpenEXR

    with _scratch_path() as path:
        path.write_bytes(data)
        try:
            with OpenEXR.File(str(path), separate_channels=True) as picture:
                return {name: channel.pixels.astype(np.float32) for name, channel in picture.channels().items()}
        except Exception as error:  # the library has no error type of its own
            raise DamagedError(f"an EXR cannot be read ({error}); restore the version, or build again") from None


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
