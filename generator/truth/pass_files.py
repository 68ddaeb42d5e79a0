"""The pictures of truth as files and back: half-float EXR for depth and normals, KITTI's PNG for flow, indexed PNG for ids.

Array legend: H rows (top first), W columns, 2 pixels (x, y), 3 coordinates.
"""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from generator.errors import DamagedError
from generator.media.images import exr_channels, read_exr
from generator.media.png16 import png16_bytes, read_png16
from scenes.arrays import Floats32

UNKNOWN, VISIBLE, HIDDEN = 0, 1, 2  # of a flow vector: there is none; its end is seen; its end is hidden or out of the picture
FLOW_ZERO, FLOW_STEPS = 2**15, 64.0  # KITTI: 1/64 pixel a step
FLOW_LIMIT_PX = 511.98
MOST_INDEXED = 255


def depth_bytes(depth_HW: Floats32) -> bytes:
    """Return depth along the optical axis (metres, inf: background) as an EXR with one half-float channel, Z."""
    return exr_channels({"Z": _half(depth_HW)})


def read_depth(data: bytes) -> Floats32:
    """Return depth along the optical axis `[H, W]`; raises DamagedError."""
    return _channel(read_exr(data), "Z")


def normals_bytes(normals_HW3: Floats32) -> bytes:
    """Return unit normals in world axes (0, 0, 0: background) as an EXR with half-float channels X, Y, Z."""
    return exr_channels({name: _half(normals_HW3[..., place]) for place, name in enumerate("XYZ")})


def read_normals(data: bytes) -> Floats32:
    """Return normals in world axes `[H, W, 3]`; raises DamagedError."""
    channels = read_exr(data)
    return np.stack([_channel(channels, name) for name in "XYZ"], axis=-1)


def flow_bytes(flow_HW2: Floats32, state_HW: NDArray[np.uint8]) -> bytes:
    """Return flow as KITTI's 16-bit PNG: red and green are x and y, (value - 2^15) / 64 pixels; blue is the state."""
    code_HW3 = np.empty((*state_HW.shape, 3), dtype=np.uint16)
    code_HW3[..., :2] = np.rint(flow_HW2 * np.float32(FLOW_STEPS) + np.float32(FLOW_ZERO))
    if (unknown_HW := state_HW == UNKNOWN).any():
        code_HW3[unknown_HW, :2] = 0
    code_HW3[..., 2] = state_HW
    return png16_bytes(code_HW3)


def read_flow(data: bytes) -> tuple[Floats32, NDArray[np.uint8]]:
    """Return flow `[H, W, 2]` (pixels; 0 where unknown) and its state `[H, W]`; raises DamagedError."""
    code_HW3 = read_png16(data)
    state_HW = code_HW3[..., 2].astype(np.uint8)
    flow_HW2 = (code_HW3[..., :2].astype(np.float32) - FLOW_ZERO) / np.float32(FLOW_STEPS)
    flow_HW2[state_HW == UNKNOWN] = 0.0
    return flow_HW2, state_HW


def instances_bytes(ids_HW: NDArray[np.uint16]) -> bytes:
    """Return ids as a PNG: indexed with a colour for each, or 16-bit grey where there are more than 255."""
    file = io.BytesIO()
    if int(ids_HW.max()) > MOST_INDEXED:
        Image.fromarray(ids_HW).save(file, format="PNG")
    else:
        picture = Image.fromarray(ids_HW.astype(np.uint8), mode="P")
        picture.putpalette(id_colors().tobytes())
        picture.save(file, format="PNG", compress_level=6)
    return file.getvalue()


def read_instances(data: bytes) -> NDArray[np.uint16]:
    """Return ids `[H, W]`, 0 the background; raises DamagedError."""
    return _picture(data).astype(np.uint16)


def read_sharp(data: bytes) -> NDArray[np.uint8]:
    """Return a frame of the sharp clip, sRGB `[H, W, 3]`; raises DamagedError."""
    return _picture(data).astype(np.uint8)


@cache
def id_colors() -> NDArray[np.uint8]:
    """Return a colour for every id up to 255, uint8 `[256, 3]`: bits spread as PASCAL VOC does, so that neighbours differ."""
    colors = np.zeros((256, 3), dtype=np.uint8)
    for index in range(256):
        rest = index
        for shift in range(7, -1, -1):
            for channel in range(3):
                colors[index, channel] |= ((rest >> channel) & 1) << shift
            rest >>= 3
    return colors


def _picture(data: bytes) -> NDArray[np.generic]:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture)
    except (UnidentifiedImageError, OSError) as error:
        raise DamagedError(f"a PNG of truth cannot be read ({error}); restore the version, or build again") from None


def _half(values: Floats32) -> NDArray[np.float16]:
    return np.asarray(values, dtype=np.float16)


def _channel(channels: dict[str, Floats32], name: str) -> Floats32:
    if name not in channels:
        raise DamagedError(
            f"an EXR of truth has no channel {name} ({', '.join(channels)}); restore the version, or build again"
        )
    return channels[name]
