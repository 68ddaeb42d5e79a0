"""The temperature axis: its law, its locus, how it acts on linear light, and what its blind probe reads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from scenes.axes.temperature.axis import Temperature
from scenes.axes.temperature.probe import imitates_neutral
from scenes.control_axis import UnitLaw
from scenes.errors import InputError
from scenes.palette import COLORS, to_bytes
from scenes.spec import Background as Backdrop
from scenes.spec import Camera, Light, Material, Motion, Optics, SceneSpec, Shot, Solid
from scenes.white import LUMINANCE_3, MAX_KELVIN, MIN_KELVIN, adaptation_33, mired, neutral_rgb, planckian_xy, white_xyz

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
AXIS = Temperature()
LAW = AXIS.default_law
kelvins = st.floats(MIN_KELVIN, MAX_KELVIN)
trained = st.floats(2000.0, 21125.0)
GREYS = (0.9, 0.59, 0.36, 0.19, 0.09, 0.045)


def test_the_locus_is_that_of_colour_science() -> None:
    import colour

    observer = colour.MSDS_CMFS["CIE 1931 2 Degree Standard Observer"]
    for kelvin in np.geomspace(MIN_KELVIN, MAX_KELVIN, 25):
        radiator = colour.sd_blackbody(kelvin, observer.shape)
        truth = colour.XYZ_to_xy(colour.sd_to_XYZ(radiator, observer, method="Integration"))
        np.testing.assert_allclose(planckian_xy(kelvin), truth, atol=1e-6)


@pytest.mark.parametrize("kelvin", [2000.0, 3200.0, 5000.0, 9000.0, 21125.0])
def test_the_adaptation_is_bradford_of_colour_science(kelvin: float) -> None:
    import colour

    from_xyz, to_xyz = white_xyz(6500.0), white_xyz(kelvin)
    cat = colour.adaptation.matrix_chromatic_adaptation_VonKries(from_xyz, to_xyz, transform="Bradford")
    to_709 = colour.RGB_COLOURSPACES["ITU-R BT.709"].matrix_RGB_to_XYZ
    truth = np.linalg.inv(to_709) @ cat @ to_709
    truth = truth / (LUMINANCE_3 @ truth.sum(axis=1))
    np.testing.assert_allclose(adaptation_33(kelvin), truth, atol=2e-4)


@given(kelvins)
def test_a_neutral_keeps_its_luminance(kelvin: float) -> None:
    assert LUMINANCE_3 @ neutral_rgb(kelvin) == pytest.approx(1.0, abs=1e-9)


@given(kelvins, kelvins)
def test_warmer_is_redder_and_less_blue_without_a_jump(first: float, second: float) -> None:
    cold, warm = max(first, second), min(first, second)
    a, b = neutral_rgb(cold), neutral_rgb(warm)
    assert b[0] >= a[0] - 1e-9
    if warm > 1900:  # below, blue has left Rec.709
        assert b[2] <= a[2] + 1e-9
        assert np.abs(b - a).max() <= 0.02 * (mired(warm) - mired(cold)) + 1e-9


def test_the_neutral_value_changes_nothing() -> None:
    linear = np.random.default_rng(0).random((2, 4, 4, 3), dtype=np.float32)
    np.testing.assert_array_equal(AXIS.apply_image(linear, 6500.0), linear)


@given(trained, st.floats(0.01, 0.35))
def test_a_grey_becomes_the_white_of_its_kelvin(kelvin: float, grey: float) -> None:
    linear = np.full((1, 2, 2, 3), grey, dtype=np.float32)
    cast = AXIS.apply_image(linear, kelvin)
    assert cast.dtype == np.float32 and cast.shape == linear.shape
    np.testing.assert_allclose(cast[0, 0, 0], grey * neutral_rgb(kelvin), rtol=1e-4, atol=1e-6)
    assert float(linear.max()) == np.float32(grey)


def test_negative_channels_are_clipped() -> None:
    green = np.zeros((1, 1, 1, 3), dtype=np.float32)
    green[..., 1] = 0.5
    assert (adaptation_33(2000.0) @ green[0, 0, 0]).min() < 0
    assert AXIS.apply_image(green, 2000.0).min() == 0.0


@given(st.floats(1000.0, 39999.0))
def test_what_is_written_parses_back(kelvin: float) -> None:
    assert AXIS.parse(AXIS.format(kelvin)) == pytest.approx(kelvin, abs=0.51)


@pytest.mark.parametrize(("text", "kelvin"), [("3200K", 3200), ("3200", 3200), (" 3200 k ", 3200), ("200 mired", 5000)])
def test_people_write_temperatures_in_several_ways(text: str, kelvin: float) -> None:
    assert AXIS.parse(text) == pytest.approx(kelvin)


@pytest.mark.parametrize("text", ["", "warm", "-3200K", "0", "3200C", "nan", "inf", "500K", "50000", "2 mired", "f/2"])
def test_what_is_no_temperature_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError) as caught:
        AXIS.parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("law", [UnitLaw(neutral=6500, ratio=0.1), UnitLaw(neutral=50000, ratio=0.5)])
def test_a_law_that_leaves_the_locus_is_refused(law: UnitLaw) -> None:
    with pytest.raises(InputError, match="locus"):
        AXIS.check_law(law, 16)


def test_the_default_law_reaches_the_documented_kelvins() -> None:
    AXIS.check_law(LAW, 16)
    assert LAW.value(-1.0) == pytest.approx(21125)
    assert LAW.value(1.0) == pytest.approx(2000)
    assert AXIS.distance(2000, 6500) == pytest.approx(500 - 1e6 / 6500)


# ---- the probe, on pictures that no renderer made


def textured(rng: np.random.Generator, size: int) -> Floats:
    """Return noise with the spectrum of photographs, zero mean and unit deviation `[size, size]`."""
    along = np.fft.fftfreq(size)
    frequency = np.hypot(along[:, None], along[None, :])
    frequency[0, 0] = 1.0
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size))) / frequency**1.2).real
    return np.asarray((field - field.mean()) / field.std(), dtype=np.float32)


def colored_albedo(rng: np.random.Generator) -> Floats:
    """Draw a plainly coloured albedo that no light of the trained range turns into a neutral."""
    while True:
        albedo = np.exp(rng.normal(0, 0.6, 3))
        albedo = albedo / albedo.max()
        range_k = [LAW.value(step / 4) for step in range(-4, 5)]
        if np.ptp(np.log(albedo)) > 0.3 and not imitates_neutral(tuple(albedo * 0.25), range_k):
            return np.asarray(albedo, dtype=np.float32)


def photo(rng: np.random.Generator, size: int) -> Floats:
    """Return a linear picture of textured coloured regions and a textured neutral one on 6 % of it `[size, size, 3]`."""
    region = np.argmax([textured(rng, size) for _ in range(5)], axis=0)
    albedos = np.stack([colored_albedo(rng) for _ in range(5)])
    picture = albedos[region] * (0.12 * np.exp(0.5 * textured(rng, size)))[..., None]
    field = textured(rng, size)
    field = np.asarray(sum(np.roll(field, shift, axis) for shift in range(-6, 7) for axis in (0, 1)), dtype=np.float32)
    neutral = field > np.quantile(field, 0.94)
    picture[neutral] = (0.12 * np.exp(0.7 * textured(rng, size)))[neutral, None]
    return np.clip(picture, 0.002, 0.36).astype(np.float32)


def degraded(rng: np.random.Generator, linear_HW3: Floats, kelvin: float, frames: int, sigma: float) -> Bytes:
    """Return sRGB frames of a picture under a light, with noise, halved chroma, and limited-range rounding, as video has."""
    cast = AXIS.apply_image(np.repeat(linear_HW3[None], frames, axis=0), kelvin)
    noisy = to_bytes(cast).astype(np.float64) + rng.normal(0, sigma, cast.shape)
    return through_420(np.clip(np.rint(noisy), 0, 255))


def through_420(code_THW3: NDArray[np.float64]) -> Bytes:
    """Return frames after rounding to 8-bit limited-range YCbCr (bt709) with box-averaged 2x2 chroma."""
    red, green, blue = np.moveaxis(code_THW3 / 255, -1, 0)
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    chroma = [(blue - luma) / 1.8556, (red - luma) / 1.5748]
    luma = (np.rint(16 + 219 * luma) - 16) / 219
    half = [(part[:, ::2, ::2] + part[:, 1::2, ::2] + part[:, ::2, 1::2] + part[:, 1::2, 1::2]) / 4 for part in chroma]
    b_y, r_y = (np.repeat(np.repeat(np.rint(128 + 224 * part) - 128, 2, 1), 2, 2) / 224 for part in half)
    blue, red = luma + 1.8556 * b_y, luma + 1.5748 * r_y
    green = (luma - 0.2126 * red - 0.0722 * blue) / 0.7152
    return np.asarray(np.clip(np.rint(np.stack([red, green, blue], axis=-1) * 255), 0, 255), dtype=np.uint8)


def test_textured_pictures_are_read_through_noise_and_compression() -> None:
    errors = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        picture = photo(rng, 256)
        for control in np.linspace(-0.95, 0.95, 5):
            kelvin = LAW.value(float(control))
            reading = AXIS.probe(degraded(rng, picture, kelvin, 3, float(rng.uniform(0, 2))), 16.0)
            assert reading.value is not None
            errors.append(abs(AXIS.distance(reading.value, kelvin)))
    assert np.median(errors) <= 2.0
    assert np.quantile(errors, 0.9) <= 8.0


def chart(size: int, ground: tuple[float, float, float]) -> Floats:
    """Return a linear picture of six grey squares and a shaded grey disc on a coloured ground `[size, size, 3]`."""
    picture = np.empty((size, size, 3), dtype=np.float32)
    picture[:] = np.asarray(ground) * 0.4
    side = size // 8
    for index, grey in enumerate(GREYS):
        top, left = size // 8 + (index // 3) * side, size // 8 + (index % 3) * side
        picture[top : top + side, left : left + side] = grey * 0.4
    y, x = np.mgrid[0:size, 0:size] - np.array([0.7 * size, 0.65 * size])[:, None, None]
    disc = np.hypot(x, y) < side
    picture[disc] = (0.24 * (0.675 + 0.325 * x / side))[disc, None]
    return picture


@pytest.mark.parametrize("size", [64, 128, 512])
@pytest.mark.parametrize("ground", ["teal", "purple", "red", "grey"])
def test_a_grey_card_is_read_in_order_even_between_near_neighbours(size: int, ground: str) -> None:
    picture = chart(size, COLORS[ground])
    rng = np.random.default_rng(7)
    controls = (np.arange(9) + rng.random(9)) * 2 / 9 - 1
    found = [AXIS.probe(degraded(rng, picture, LAW.value(float(c)), 5, 0.0), 16.0).value for c in controls]
    errors = [AXIS.distance(value or 1.0, LAW.value(float(c))) for value, c in zip(found, controls, strict=True)]
    assert np.max(np.abs(errors)) <= (5.0 if size == 64 else 2.5), errors
    assert found == sorted(found, reverse=True)


def test_the_neutral_wins_over_a_larger_flat_colour_that_looks_like_one() -> None:
    """A warm white (an imitation by construction) covers the ground; the card's many luminances tell the light."""
    imitation = neutral_rgb(4000.0) * 0.5
    for kelvin in (2600.0, 4500.0, 6500.0, 12000.0):
        picture = chart(256, (float(imitation[0]), float(imitation[1]), float(imitation[2])))
        reading = AXIS.probe(degraded(np.random.default_rng(0), picture, kelvin, 2, 0.5), 16.0)
        assert reading.value is not None
        assert abs(AXIS.distance(reading.value, kelvin)) < 4


def test_a_picture_without_anything_neutral_is_not_read() -> None:
    for name in ("green", "magenta", "purple", "lime"):
        frames = np.empty((1, 64, 64, 3), dtype=np.float32)
        frames[:] = np.asarray(COLORS[name]) * 0.4
        reading = AXIS.probe(to_bytes(frames), 16.0)
        assert reading.value is None and reading.confidence == 0 and reading.note


@pytest.mark.parametrize("code", [0, 255])
def test_black_and_clipped_frames_are_not_read(code: int) -> None:
    frames = np.full((1, 32, 32, 3), code, dtype=np.uint8)
    assert AXIS.probe(frames, 16.0).value is None
    assert AXIS.relative(frames, frames, 16.0) is None


shapes = st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40), st.just(3))


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.uint8, shapes))
def test_any_frames_give_a_reading_or_a_reason(frames: Bytes) -> None:
    reading = AXIS.probe(frames, 16.0)
    assert 0.0 <= reading.confidence <= 1.0
    if reading.value is None:
        assert reading.confidence == 0.0 and reading.note
    else:
        assert MIN_KELVIN * 0.99 <= reading.value <= MAX_KELVIN * 1.01
    difference = AXIS.relative(frames, frames, 16.0)
    assert difference is None or abs(difference) < 1.0


# ---- relative reading


def test_relative_readings_follow_the_cast_whatever_the_brightness() -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        picture = photo(rng, 128)
        reference = degraded(rng, picture, 6500.0, 2, 1.0)
        for control in (-1.0, -0.5, 0.2, 0.6, 1.0):
            kelvin = LAW.value(control)
            clip = degraded(rng, picture * np.float32(rng.uniform(0.7, 1.0)), kelvin, 2, 1.0)
            difference = AXIS.relative(clip, reference, 16.0)
            assert difference is not None
            assert difference == pytest.approx(AXIS.distance(kelvin, 6500.0), abs=4 + 0.03 * mired(kelvin))


@pytest.mark.parametrize("control", [-1.5, -1.2, 1.2, 1.5])
def test_extrapolated_casts_are_still_told_apart(control: float) -> None:
    picture = photo(np.random.default_rng(3), 128)
    rng = np.random.default_rng(0)
    reference = degraded(rng, picture, 6500.0, 1, 1.0)
    difference = AXIS.relative(degraded(rng, picture, LAW.value(control), 1, 1.0), reference, 16.0)
    truth = AXIS.distance(LAW.value(control), 6500.0)
    assert difference is not None
    assert difference == pytest.approx(truth, abs=5 + 0.2 * abs(truth))


def test_relative_refuses_clips_of_two_sizes() -> None:
    with pytest.raises(InputError, match=r"8x4.*4x4"):
        AXIS.relative(np.zeros((1, 4, 8, 3), np.uint8), np.zeros((1, 4, 4, 3), np.uint8), 16.0)


# ---- the measurement


def one_solid(role: str) -> SceneSpec:
    white = Material(color_name="white", albedo=(0.9, 0.9, 0.9))
    solid = Solid.model_validate(
        {
            "name": "one",
            "role": role,
            "kind": "plane",
            "scale_m": (1.0, 1.0, 1.0),
            "material": white,
            "motion": Motion(location_m=(0.0, 0.0, 0.0)),
        }
    )
    return SceneSpec(
        family="tabletop",
        shot=Shot(width=64, height=64, fps=16, frames=1),
        camera=Camera(location_m=(0, -3, 0.1), target_m=(0, 0, 0), focal_length_mm=50, focus_distance_m=3),
        light=Light(direction=(0, -1, 1)),
        background=Backdrop(name="grey", bottom=(0.1, 0.1, 0.1), top=(0.1, 0.1, 0.1)),
        solids=(solid,),
    )


def test_a_measurement_is_in_mired_and_judged_only_where_a_patch_is_promised() -> None:
    frames = degraded(np.random.default_rng(0), chart(64, COLORS["teal"]), 3200.0, 1, 0.0)
    reading = AXIS.probe(frames, 16.0)
    measured = AXIS.measure(reading, one_solid("patch"), Optics(), 3000.0)
    assert measured.judged and measured.measured == reading.value
    assert measured.error == pytest.approx(mired(reading.value or 0) - mired(3000.0))
    assert "away from" in measured.note  # 20 mired off, and not where the scene's patch is
    assert not AXIS.measure(reading, one_solid("prop"), Optics(), 3200.0).judged


def test_an_unreadable_neutral_patch_is_a_failure_of_the_probe() -> None:
    reading = AXIS.probe(np.zeros((1, 16, 16, 3), np.uint8), 16.0)
    measured = AXIS.measure(reading, one_solid("patch"), Optics(), 3200.0)
    assert measured.judged and measured.measured is None and measured.error is None and measured.note
