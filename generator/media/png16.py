"""PNG of 16 bits a channel, which Pillow cannot read in colour: flow fields as KITTI keeps them.

Array legend: H rows (top first), W columns, 3 channels.
"""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from generator.errors import DamagedError

_FORMAT = "rgb48be"


def png16_bytes(picture_HW3: NDArray[np.uint16]) -> bytes:
    """Return a picture of 16-bit red, green and blue as PNG."""
    context = av.CodecContext.create("png", "w")
    context.height, context.width, _ = picture_HW3.shape
    context.pix_fmt, context.time_base, context.thread_count = _FORMAT, Fraction(1), 1
    context.options = {"compression_level": "3", "pred": "up"}
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture_HW3), format=_FORMAT)
    return b"".join(bytes(packet) for packet in (*context.encode(frame), *context.encode(None)))


def read_png16(data: bytes) -> NDArray[np.uint16]:
    """Return the picture of such a PNG, uint16 `[H, W, 3]`; raises DamagedError."""
    context = av.CodecContext.create("png", "r")
    context.thread_count = 1
    try:
        frames = [*context.decode(av.Packet(data)), *context.decode(None)]
    except FFmpegError as error:
        raise DamagedError(f"a 16-bit PNG cannot be read ({error}); restore the version, or build again") from None
    if len(frames) != 1 or frames[0].format.name != _FORMAT:
        raise DamagedError("a file that should be a 16-bit PNG is none; restore the version, or build again")
    return np.asarray(frames[0].to_ndarray(), dtype=np.uint16)
