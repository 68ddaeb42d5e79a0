"""Procedural clips of one thing that crosses the picture, which no renderer made: what the shutter's probe is tried on.

They are exact: silhouettes with shading or texture, 4 x 4 samples a pixel, blurred along their motion by a box in linear light
through the Fourier transform, over smooth or textured backdrops, then sRGB, noise and H.264.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from generator.media.video import decode, encode
from scenes.control_axis import Reading
from scenes.palette import srgb_encode

FPS = 16
FINE = 4  # samples a pixel, each way


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A procedural clip: its frames, and the exposure as a share of the frame interval."""

    frames: np.ndarray
    blur_px: float
    speed_px: float


def texture(rng, side: int, slope: float = 1.6) -> np.ndarray:
    """Return a photograph-like texture: a 1 / f^slope spectrum, zero mean, unit variance."""
    f = np.fft.fftfreq(side)
    radius = np.hypot(*np.meshgrid(f, f))
    radius[0, 0] = 1.0
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((side, side))) / radius**slope).real
    return (field - field.mean()) / field.std()


def procedural(
    seed: int,
    share: float,
    *,
    side=192,
    frames=5,
    textured=False,
    noise=0.0,
    crf: int | None = 12,
    kind="any",
    contrast=0.15,
    size_share=None,
) -> Clip:
    """Return one thing that crosses the picture; `share` is the exposure in frame intervals."""
    rng = np.random.default_rng(seed)
    size = side * (rng.uniform(0.22, 0.3) if size_share is None else size_share)
    angle = rng.uniform(0, 2 * math.pi)
    unit = np.array([math.cos(angle), math.sin(angle)])
    speed = (0.92 * side - 1.1 * size) / frames * rng.uniform(0.85, 1.0) if frames > 1 else 0.8 * size
    blur = speed * share
    while True:
        back, front = rng.uniform(0.05, 0.7, 3), rng.uniform(0.02, 0.8, 3)
        luma = srgb_encode(np.stack([back, 0.6 * front, front])) @ [0.2126, 0.7152, 0.0722]
        if (
            abs(luma[0] - luma[1]) > contrast
            and abs(luma[0] - luma[2]) > contrast
            and (luma[1] > luma[0]) == (luma[2] > luma[0])
        ):
            break
    ramp = np.linspace(1.0, 0.8, side)[:, None, None] * back
    backdrop = np.broadcast_to(ramp, (side, side, 3))
    if textured:
        backdrop = np.clip(backdrop * (1 + 0.25 * texture(rng, side)[..., None]), 0.01, 1.0)
    patch = int(2 * math.ceil((size + blur) * 0.55 + 5))
    inside, shade = silhouette(rng, str(rng.choice(["disc", "box", "star"])) if kind == "any" else kind, size, patch)
    if textured:
        shade = shade * np.clip(1 + 0.2 * texture(rng, patch * FINE), 0.4, 1.6)
    picture = np.repeat(backdrop[None], frames, axis=0)
    start = np.full(2, side / 2) - unit * speed * (frames - 1) / 2 + rng.uniform(-1, 1, 2)
    for frame in range(frames):
        lay_over(picture[frame], (inside, shade), start + unit * speed * frame, unit * blur, front)
    sharp = srgb_encode(picture) * 255 + rng.standard_normal(picture.shape) * noise
    made = np.clip(np.rint(sharp), 0, 255).astype(np.uint8)
    return Clip(frames=made if crf is None else decode(encode(made, FPS, crf, "medium")), blur_px=blur, speed_px=speed)


def silhouette(rng, kind: str, size: float, patch: int) -> tuple[np.ndarray, np.ndarray]:
    y, x = (np.mgrid[: patch * FINE, : patch * FINE] + 0.5) / FINE - patch / 2
    turn, radius = rng.uniform(0, math.pi), size / 2
    u, v = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    lit = 0.8 + 0.2 * np.clip(u / radius, -1, 1)
    if kind == "disc":
        return (u * u + v * v < radius**2).astype(float), lit
    if kind == "box":
        return ((np.abs(u) < radius) & (np.abs(v) < 0.65 * radius)).astype(float), np.where(v > 0.2 * radius, 0.7, 1.0)
    rim = radius * (0.85 + 0.15 * np.cos(5 * np.arctan2(v, u)))
    return (np.hypot(u, v) < rim).astype(float), lit


def lay_over(frame, thing, center, blur_2, color) -> None:
    """Lay a blurred thing over a linear frame, in place."""
    inside, shade = thing
    corner = np.floor(center).astype(int)
    shift = (center - corner) * FINE
    f = np.fft.fftfreq(len(inside))
    fx, fy = np.meshgrid(f, f)
    kernel = np.sinc((fx * blur_2[0] + fy * blur_2[1]) * FINE) * np.exp(-2j * np.pi * (fx * shift[0] + fy * shift[1]))
    kernel *= np.exp(-2 * (np.pi * 0.3 * FINE) ** 2 * (fx**2 + fy**2))
    patch = len(inside) // FINE
    cover, light = (
        np.fft.ifft2(np.fft.fft2(part) * kernel).real.reshape(patch, FINE, patch, FINE).mean(axis=(1, 3))
        for part in (inside, inside * shade)
    )
    left, top = corner - patch // 2
    ys, xs = slice(max(top, 0), min(top + patch, len(frame))), slice(max(left, 0), min(left + patch, len(frame)))
    own = (slice(ys.start - top, ys.stop - top), slice(xs.start - left, xs.stop - left))
    frame[ys, xs] = frame[ys, xs] * (1 - cover[own][..., None]) + light[own][..., None] * color


def stops_off(reading: Reading, clip: Clip) -> float:
    assert reading.value is not None, reading.note
    return math.log2(reading.value * FPS * clip.speed_px / clip.blur_px)
