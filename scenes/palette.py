"""Named colours and backdrops in scene-linear Rec.709, the sRGB transfer function, and how different two colours look.

Array legend: T frames, H rows, W columns, 3 channels (RGB).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scenes.arrays import Bytes, Floats
from scenes.errors import InputError, SceneError, closest
from scenes.spec import Background, Vec3


def srgb_encode(linear: ArrayLike) -> NDArray[Any]:
    """Return display values in [0, 1] of scene-linear ones, any shape, clipped to [0, 1]; float32 stays float32.

    Source: IEC 61966-2-1.
    """
    clipped = np.clip(_as_float(linear), 0.0, 1.0)
    low = clipped * 12.92
    high = 1.055 * np.power(np.maximum(clipped, 0.0031308), 1 / 2.4) - 0.055
    return np.asarray(np.where(clipped <= 0.0031308, low, high), dtype=clipped.dtype)


def srgb_decode(encoded: ArrayLike) -> NDArray[Any]:
    """Return scene-linear values of display values in [0, 1], any shape; float32 stays float32.

    Source: IEC 61966-2-1.
    """
    values = _as_float(encoded)
    high = np.power((np.maximum(values, 0.04045) + 0.055) / 1.055, 2.4)
    return np.asarray(np.where(values <= 0.04045, values / 12.92, high), dtype=values.dtype)


def to_bytes(linear_THW3: ArrayLike) -> Bytes:
    """Return 8-bit sRGB of scene-linear frames of any shape: clipped, encoded, rounded to nearest, no dithering."""
    return np.asarray(np.rint(srgb_encode(linear_THW3) * 255.0), dtype=np.uint8)


def _as_float(values: ArrayLike) -> NDArray[Any]:
    array = np.asarray(values)
    return array if array.dtype == np.float32 else array.astype(np.float64)


def _linear(text: str) -> Vec3:
    """Return the scene-linear colour of an sRGB hex triplet."""
    red, green, blue = srgb_decode([int(text[start : start + 2], 16) / 255 for start in (0, 2, 4)])
    return (round(float(red), 5), round(float(green), 5), round(float(blue), 5))


COLORS: Mapping[str, Vec3] = MappingProxyType(
    {
        "red": _linear("d12b2b"),
        "orange": _linear("ee8222"),
        "yellow": _linear("f0d02e"),
        "lime": _linear("9bd23c"),
        "green": _linear("2f9e44"),
        "teal": _linear("12857d"),
        "cyan": _linear("35c4dc"),
        "blue": _linear("2a5bd7"),
        "navy": _linear("1d2f6f"),
        "purple": _linear("7a3fb8"),
        "magenta": _linear("cf2f9e"),
        "pink": _linear("f29bb7"),
        "brown": _linear("7a4a26"),
        "beige": _linear("d9c6a0"),
        "white": _linear("f0f0f0"),
        "grey": _linear("8c8c8c"),
        "charcoal": _linear("2b2d30"),
    }
)

NEUTRALS: frozenset[str] = frozenset({"white", "grey", "charcoal"})


def _backdrop(name: str, bottom: str, top: str) -> Background:
    return Background(name=name, bottom=_linear(bottom), top=_linear(top))


BACKGROUNDS: Mapping[str, Background] = MappingProxyType(
    {
        backdrop.name: backdrop
        for backdrop in (
            _backdrop("pale blue", "dfe9f2", "b4cfe6"),
            _backdrop("dark slate", "3a444e", "262e36"),
            _backdrop("sandy beige", "e9dcc3", "d6c19c"),
            _backdrop("light grey", "dcdcdc", "c2c2c2"),
            _backdrop("dark grey", "4c4c4c", "353535"),
            _backdrop("ivory", "f4f3f0", "e6e5e2"),
            _backdrop("mint green", "dcefe2", "b7dcc6"),
            _backdrop("pale pink", "f5e2e2", "e8c6ca"),
            _backdrop("lavender", "e4dff0", "c9c0e0"),
            _backdrop("deep teal", "1f4a4c", "143438"),
            _backdrop("midnight blue", "26304f", "161c36"),
            _backdrop("dusty rose", "c79a98", "ad7d80"),
            _backdrop("sage green", "b3bfa3", "93a384"),
        )
    }
)


def color(name: str) -> Vec3:
    """Return a named colour, scene-linear; raises InputError for an unknown name."""
    if name not in COLORS:
        raise InputError(f"colour '{name}' is unknown{closest(name, COLORS)}; choose one of {', '.join(COLORS)}")
    return COLORS[name]


def background(name: str) -> Background:
    """Return a named backdrop; raises InputError for an unknown name."""
    if name not in BACKGROUNDS:
        known = ", ".join(BACKGROUNDS)
        raise InputError(f"background '{name}' is unknown{closest(name, BACKGROUNDS)}; choose one of {known}")
    return BACKGROUNDS[name]


_XYZ_OF_RGB_33 = np.array(
    [[0.4123908, 0.3575843, 0.1804808], [0.2126390, 0.7151687, 0.0721923], [0.0193308, 0.1191948, 0.9505322]]
)  # ITU-R BT.709 primaries, D65


def lab(linear: ArrayLike) -> Floats:
    """Return CIE L*a*b* (D65) of scene-linear colours `[..., 3]`, clipped to what a display shows."""
    rgb = np.clip(np.asarray(linear, dtype=np.float64), 0.0, 1.0)
    xyz = rgb @ _XYZ_OF_RGB_33.T / _XYZ_OF_RGB_33.sum(axis=1)
    cubed = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = cubed[..., 0], cubed[..., 1], cubed[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def delta_e(a_linear: Sequence[float], b_linear: Sequence[float]) -> float:
    """Return the CIEDE2000 difference of two scene-linear colours as displayed: 2 is just visible, 20 is plain."""
    return _delta_e(_key(a_linear), _key(b_linear))


def _key(linear: Sequence[float]) -> Vec3:
    red, green, blue = (round(float(part), 5) for part in linear)
    return (red, green, blue)


@lru_cache(maxsize=65536)
def _delta_e(a_linear: Vec3, b_linear: Vec3) -> float:
    from colour.difference import delta_E_CIE2000  # importing colour takes half a second

    return float(delta_E_CIE2000(lab(a_linear), lab(b_linear)))


def least_delta_e(linear: Sequence[float], others_N3: ArrayLike) -> float:
    """Return the smallest CIEDE2000 difference of a scene-linear colour from several `[N, 3]`, in one go."""
    from colour.difference import delta_E_CIE2000  # importing colour takes half a second

    return float(np.min(delta_E_CIE2000(lab(linear), lab(others_N3))))


def pick(
    rng: np.random.Generator,
    names: Iterable[str] = tuple(COLORS),
    away_from: Iterable[Sequence[float]] = (),
    min_delta_e: float = 20.0,
) -> str:
    """Draw one of the named colours, among those that differ from every given scene-linear colour by `min_delta_e`.

    Raises SceneError where none does.
    """
    choices = tuple(names)
    others = tuple(away_from)
    allowed = [name for name in choices if all(delta_e(color(name), other) >= min_delta_e for other in others)]
    if not allowed:
        raise SceneError(
            f"none of the colours {', '.join(choices)} differs by {min_delta_e:g} (CIEDE2000) from the {len(others)} "
            "around it; allow more colours or a smaller difference"
        )
    return allowed[int(rng.integers(len(allowed)))]
