"""Clips as H.264: true colours, the right tags, the same bytes every time, and clear errors."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.errors import DamagedError
from generator.media.images import exr_bytes, png_bytes
from generator.media.video import decode, encode, frames_digest

LUMA_709 = np.array([0.2126, 0.7152, 0.0722])  # ITU-R BT.709, item 3.2


def still(color: tuple[int, int, int], size: int = 32) -> np.ndarray:
    return np.broadcast_to(np.array(color, dtype=np.uint8), (1, size, size, 3))


def moving(frames: int, height: int, width: int, seed: int = 0, noise: float = 1.5) -> np.ndarray:
    """Return a smooth gradient with a disc that moves over it."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    made = []
    for index in range(frames):
        frame = np.stack([columns * 255 / width, rows * 255 / height, (rows + columns) * 127 / width], axis=-1)
        frame[(columns - 8 - 5 * index) ** 2 + (rows - height / 2) ** 2 < (height / 5) ** 2] = (209, 43, 43)
        made.append(np.clip(frame + rng.normal(0, noise, frame.shape), 0, 255).astype(np.uint8))
    return np.stack(made)


@settings(max_examples=60, deadline=None)
@given(color=st.tuples(*[st.integers(0, 255)] * 3))
def test_the_stream_holds_bt709_limited_range(color: tuple[int, int, int]) -> None:
    data = encode(still(color), 16, 0, "medium")
    with av.open(io.BytesIO(data)) as container:
        yuv = next(container.decode(video=0)).to_ndarray()
    luma = float(LUMA_709 @ color)
    expected = (
        16 + 219 / 255 * luma,
        128 + 224 / 255 * (color[2] - luma) / 1.8556,
        128 + 224 / 255 * (color[0] - luma) / 1.5748,
    )
    found = (yuv[:32].mean(), yuv[32:40].mean(), yuv[40:48].mean())
    assert np.abs(np.subtract(found, expected)).max() <= 1.0  # half a step of rounding, half a step of the encoder


def test_the_stream_is_tagged() -> None:
    with av.open(io.BytesIO(encode(moving(5, 64, 64), 16, 12, "medium"))) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt, stream.average_rate, stream.frames) == ("h264", "yuv420p", 16, 5)
        assert context.colorspace == Colorspace.ITU709
        assert context.color_range == ColorRange.MPEG
        assert context.color_primaries == ColorPrimaries.BT709
        assert context.color_trc == ColorTrc.BT709


@settings(max_examples=40, deadline=None)
@given(color=st.tuples(*[st.integers(0, 255)] * 3))
def test_colours_come_back(color: tuple[int, int, int]) -> None:
    back = decode(encode(still(color), 16, 12, "medium")).astype(int)
    assert np.abs(back.mean(axis=(0, 1, 2)) - color).max() <= 3.0  # 8-bit limited range alone costs up to 2


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 64, 64), (5, 64, 96), (9, 130, 64)])
def test_frames_come_back_in_order_and_place(frames: int, height: int, width: int) -> None:
    clip = moving(frames, height, width)
    back = decode(encode(clip, 16, 1, "medium"))
    assert back.shape == clip.shape
    for index in range(frames):
        errors = [np.square(back[index].astype(float) - other).mean() for other in clip]
        assert int(np.argmin(errors)) == index


def test_quality_at_the_default_rate() -> None:
    clip = moving(5, 256, 256, noise=0.0)
    back = decode(encode(clip, 16, 12, "medium"))
    error = np.square(back.astype(float) @ LUMA_709 - clip @ LUMA_709).mean()  # luma: chroma has half of the samples
    assert 10 * np.log10(255**2 / error) > 42


@pytest.mark.parametrize("size", [64, 96])
def test_equal_frames_make_equal_bytes_whatever_lies_in_memory(size: int) -> None:
    # x264 without cpu-independent=1 fails this: its vectorised macroblock tree reads beyond narrow pictures.
    clip, rng = moving(9, size, size, seed=3), np.random.default_rng(0)
    seen = set()
    for _ in range(40):
        litter = [np.full(int(length), rng.integers(256), dtype=np.uint8) for length in rng.integers(100, 200_000, 30)]
        del litter[::2]
        seen.add(hashlib.sha256(encode(clip, 16, 12, "medium")).hexdigest())
    assert len(seen) == 1


def test_the_digest_covers_shape_and_pixels() -> None:
    clip = moving(5, 16, 32)
    other = clip.copy()
    other[4, 15, 31, 2] ^= 1
    digests = {frames_digest(clip), frames_digest(other), frames_digest(clip.reshape(5, 32, 16, 3))}
    assert len(digests) == 3
    assert frames_digest(clip[:, ::-1][:, ::-1]) == frames_digest(clip)


@pytest.mark.parametrize("cut", [0, 40, 600])
def test_a_damaged_file_is_named(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(encode(moving(1, 32, 32), 16, 12, "medium")[:cut])
    with pytest.raises(DamagedError, match=r"clip\.mp4"):
        decode(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match="missing"):
        decode(tmp_path / "clip.mp4")


def test_lossless_frames_are_lossless(tmp_path: Path) -> None:
    imageio = pytest.importorskip("imageio.v3")
    openexr = pytest.importorskip("OpenEXR")
    srgb = moving(1, 20, 30)[0]
    assert np.array_equal(imageio.imread(png_bytes(srgb), extension=".png"), srgb)
    linear = np.random.default_rng(0).uniform(0, 30, (20, 30, 3)).astype(np.float32)
    linear[0, 0] = (1e6, 0.0, 65504.0)
    path = tmp_path / "frame.exr"
    path.write_bytes(exr_bytes(linear))
    back = openexr.File(str(path)).channels()["RGB"].pixels
    assert back.dtype == np.float16
    assert np.array_equal(back, np.minimum(linear, 65504.0).astype(np.float16))
    assert exr_bytes(linear) == path.read_bytes()
