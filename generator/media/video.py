"""Clips as H.264 in MP4: frames to bytes and back, with the colour conversion spelled out and the same bytes every time.

Array legend: T frames, H rows (top first), W columns, 3 channels (sRGB, uint8).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation

from generator.errors import DamagedError
from scenes.arrays import Bytes

# Without these flags swscale takes short cuts that differ between processors and average chroma of every other row only.
_EXACT = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)

# x264's vectorised macroblock tree reads past narrow pictures into whatever lies there: at 64 px, nine different streams in
# 150 runs. This takes its plain C instead, which is also the same on every processor, and costs nothing measurable.
X264_PARAMS = "cpu-independent=1"


def encoder_version() -> str:
    """Return what makes the byte stream: PyAV and the x264 library it carries."""
    return f"PyAV {importlib.metadata.version('av')}, libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}"


def encode(frames_THW3: Bytes, fps: int, crf: int, preset: str) -> bytes:
    """Encode sRGB frames to an MP4 (H.264, yuv420p, bt709, limited range), in memory.

    One thread, because the byte stream depends on the number of threads; even width and height.
    """
    count, height, width, _ = frames_THW3.shape
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        options = {"crf": str(crf), "preset": preset, "x264-params": X264_PARAMS}
        stream = container.add_stream("libx264", rate=Fraction(fps), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.thread_count = 1
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        for index in range(count):
            container.mux(stream.encode(_to_yuv(frames_THW3[index], index, fps)))
        container.mux(stream.encode())
    return file.getvalue()


def decode(source: Path | bytes) -> Bytes:
    """Decode an MP4 to sRGB frames `[T, H, W, 3]`, one thread; raises DamagedError for what is no readable video."""
    name = "the clip" if isinstance(source, bytes) else str(source)
    try:
        frames = list(_decoded(io.BytesIO(source) if isinstance(source, bytes) else str(source)))
    except FileNotFoundError:
        raise DamagedError(f"{name} is missing; run the build again to make it anew") from None
    except (av.FFmpegError, IndexError) as error:
        raise DamagedError(f"{name} cannot be decoded ({error}); run `stopdown verify`, then build again") from None
    if not frames:
        raise DamagedError(f"{name} holds no frames; run `stopdown verify`, then build again")
    return np.stack(frames)


def frames_digest(frames_THW3: Bytes) -> str:
    """Return the sha256 of frames: of their shape, then of their bytes in row order."""
    digest = hashlib.sha256("x".join(map(str, frames_THW3.shape)).encode())
    digest.update(frames_THW3.tobytes())
    return digest.hexdigest()


def _to_yuv(frame_HW3: Bytes, index: int, fps: int) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HW3), format="rgb24").reformat(
        format="yuv420p",
        interpolation=_EXACT,
        src_color_range=ColorRange.JPEG,
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        dst_color_trc=ColorTrc.BT709,
        dst_color_primaries=ColorPrimaries.BT709,
        threads=1,
    )
    frame.pts, frame.time_base = index, Fraction(1, fps)
    return frame


def _decoded(source: io.BytesIO | str) -> Iterator[Bytes]:
    with av.open(source, "r", format="mp4") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for frame in container.decode(stream):
            rgb = frame.reformat(
                format="rgb24",
                interpolation=_EXACT,
                src_colorspace=Colorspace.ITU709,
                src_color_range=ColorRange.MPEG,
                dst_color_range=ColorRange.JPEG,
                threads=1,
            )
            yield np.asarray(rgb.to_ndarray(), dtype=np.uint8)
