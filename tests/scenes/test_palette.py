"""Laws of the palette: the transfer function, the colour difference, and picking apart."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenes.errors import InputError, SceneError
from scenes.palette import (
    BACKGROUNDS,
    COLORS,
    NEUTRALS,
    background,
    color,
    delta_e,
    lab,
    least_delta_e,
    pick,
    srgb_decode,
    srgb_encode,
    to_bytes,
)

parts = st.floats(0.0, 1.0)
colors = st.tuples(parts, parts, parts)


def test_every_byte_survives_the_round_trip() -> None:
    levels = np.arange(256, dtype=np.uint8)
    assert (to_bytes(srgb_decode(levels / 255)) == levels).all()
    assert (to_bytes(srgb_decode(np.float32(levels / 255))) == levels).all()


@given(parts)
def test_encode_inverts_decode(value: float) -> None:
    assert float(srgb_encode(srgb_decode(value))) == pytest.approx(value, abs=1e-7)


def test_known_values_clipping_and_types() -> None:
    assert to_bytes(np.array([-1.0, 0.0, 0.18, 0.5, 1.0, 7.0])).tolist() == [0, 0, 118, 188, 255, 255]
    frames = np.full((2, 3, 4, 3), 0.25, dtype=np.float32)
    assert srgb_encode(frames).dtype == np.float32
    assert to_bytes(frames).shape == frames.shape


@settings(deadline=None, max_examples=30)
@given(colors, colors)
def test_difference_agrees_with_colour_science_from_rgb_on(a: tuple[float, ...], b: tuple[float, ...]) -> None:
    import colour

    def reference_lab(rgb: tuple[float, ...]) -> np.ndarray:
        return np.asarray(colour.XYZ_to_Lab(colour.RGB_to_XYZ(rgb, "sRGB", apply_cctf_decoding=False)))

    assert np.abs(reference_lab(a) - lab(a)).max() < 0.05
    expected = float(colour.delta_E(reference_lab(a), reference_lab(b), method="CIE 2000"))
    assert delta_e(a, b) == pytest.approx(expected, abs=0.3)  # near grey, hue is sensitive
    assert delta_e(a, b) == pytest.approx(delta_e(b, a), abs=1e-9)
    assert least_delta_e(a, [b, a]) == pytest.approx(0.0, abs=1e-9)


def test_named_colours_can_be_told_apart() -> None:
    assert len(COLORS) >= 15
    assert min(delta_e(COLORS[a], COLORS[b]) for a, b in itertools.combinations(COLORS, 2)) > 12
    for name in NEUTRALS:
        assert abs(lab(color(name))[1:]).max() < 4
    assert max(max(value) for value in COLORS.values()) < 1.0


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.sampled_from(sorted(BACKGROUNDS)))
def test_pick_keeps_away(seed: int, backdrop: str) -> None:
    behind = background(backdrop)
    drawn = pick(np.random.default_rng(seed), COLORS, (behind.bottom, behind.top), 20.0)
    assert min(delta_e(color(drawn), behind.bottom), delta_e(color(drawn), behind.top)) >= 20.0
    assert drawn == pick(np.random.default_rng(seed), COLORS, (behind.bottom, behind.top), 20.0)


def test_pick_refuses_where_nothing_fits() -> None:
    with pytest.raises(SceneError, match="differs by 20"):
        pick(np.random.default_rng(0), ("red",), (color("red"),), 20.0)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'orange'"):
        color("ornage")
    with pytest.raises(InputError, match="did you mean 'pale blue'"):
        background("pale blu")
