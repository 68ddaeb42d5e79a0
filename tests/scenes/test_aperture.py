"""The aperture axis: its law, and its blind probe against discs that the renderer did not make.

Truth here is numpy: shapes convolved with a lens's disc on a fine grid in linear light, averaged to pixels, sRGB, noise, H.264.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from scipy.signal import fftconvolve
from scipy.stats import spearmanr

from generator.media.video import decode, encode
from scenes.axes.aperture.axis import Aperture, expected_discs
from scenes.axes.aperture.blur_ratio import pool
from scenes.axes.aperture.disc_profile import overlap
from scenes.axes.aperture.probe import find_spots
from scenes.control_axis import Detection, Reading, UnitLaw
from scenes.errors import InputError
from scenes.families.base import draw_scene
from scenes.families.depth_row import DEPTH_ROW
from scenes.palette import to_bytes
from scenes.spec import Optics, Shot

FINE = 3  # grid points per pixel
APERTURE = Aperture()


def disc_kernel(diameter_px: float):
    """Return a lens's disc on the fine grid, of sum 1."""
    half = math.ceil(diameter_px * FINE / 2) + 1
    y, x = np.mgrid[-half : half + 1, -half : half + 1] / FINE
    kernel = np.clip((diameter_px / 2 - np.hypot(x, y)) * FINE + 0.5, 0.0, 1.0)
    return kernel / kernel.sum()


def ball(size_px: int, x_px: float, y_px: float, diameter_px: float):
    """Return a disc of height 1 on the fine grid."""
    y, x = (np.mgrid[0 : size_px * FINE, 0 : size_px * FINE] + 0.5) / FINE
    return np.clip((diameter_px / 2 - np.hypot(x - x_px, y - y_px)) * FINE + 0.5, 0.0, 1.0)


def to_pixels(fine_HW):
    """Average the fine grid to pixels, after the optics' own softness (together 0.36 px rms)."""
    soft_HW = ndimage.gaussian_filter(fine_HW, 0.21 * FINE)
    size = len(fine_HW) // FINE
    return soft_HW.reshape(size, FINE, size, FINE).mean(axis=(1, 3))


def film(linear_HW, *, sigma: float, frames: int, rng: np.random.Generator):
    """Return what a camera files: sRGB with Gaussian noise (levels), H.264 at CRF 12, decoded."""
    clean_HW3 = to_bytes(np.repeat(linear_HW[..., None], 3, axis=2)).astype(np.float64)
    noisy = [np.clip(np.rint(clean_HW3 + rng.normal(0, sigma, clean_HW3.shape)), 0, 255) for _ in range(frames)]
    return decode(encode(np.stack(noisy).astype(np.uint8), 16, 12, "medium"))


LIGHTS = [(52.3, 60.1, 40.0, 1.0), (150.7, 48.9, 44.0, 0.9), (60.4, 156.6, 38.0, 1.1), (156.2, 150.3, 42.0, 0.95)]


def lights(disc_px: float):
    """Return the linear picture (208 px) of four round lights on a gradient, each blurred by its share of a disc."""
    picture_HW = np.broadcast_to(np.linspace(0.03, 0.06, 208)[:, None], (208, 208)).copy()
    for x, y, outline, share in LIGHTS:
        picture_HW += to_pixels(0.6 * fftconvolve(ball(208, x, y, outline), disc_kernel(share * disc_px), mode="same"))
    return picture_HW


def paper_cuts(seed: int, disc_px: float, size_px: int = 208):
    """Return the linear picture of overlapping rectangles, blurred by a disc: a procedural texture with known blur."""
    rng = np.random.default_rng(seed)
    y, x = (np.mgrid[0 : size_px * FINE, 0 : size_px * FINE] + 0.5) / FINE
    cuts_HW = np.full(x.shape, 0.12)
    for _ in range(14):
        (a, b), turn, (width, height) = rng.uniform(0, size_px, 2), rng.uniform(0, math.pi), rng.uniform(30, 80, 2)
        u, v = (x - a) * math.cos(turn) + (y - b) * math.sin(turn), (y - b) * math.cos(turn) - (x - a) * math.sin(turn)
        cuts_HW[(np.abs(u) < width / 2) & (np.abs(v) < height / 2)] = rng.uniform(0.02, 0.5)
    return to_pixels(blurred(cuts_HW, disc_px))


def blurred(fine_HW, disc_px: float):
    margin = math.ceil(disc_px * FINE)
    padded = np.pad(fine_HW, margin, mode="reflect")
    return fftconvolve(padded, disc_kernel(disc_px), mode="same")[margin:-margin, margin:-margin]


# --- the law -----------------------------------------------------------------------------------------------------------


@given(st.floats(-1.5, 1.5))
def test_law_is_the_default_table_and_written_values_parse_back(control):
    value = APERTURE.default_law.value(control)
    assert APERTURE.distance(value, 5.6) == pytest.approx(4 * control, abs=1e-9)  # ratio 1/4 is four stops
    assert APERTURE.parse(APERTURE.format(value)) == pytest.approx(value, rel=5e-3)
    assert APERTURE.apply_optics(Optics(exposure_s=0.01), value) == Optics(exposure_s=0.01, f_number=value)


@pytest.mark.parametrize("text", ["f/2.8", "2.8", "f2.8", "F/2.8", " f / 2.8 ", "ƒ/2.8"])
def test_people_write_f_numbers_in_many_ways(text):
    assert APERTURE.parse(text) == 2.8


@pytest.mark.parametrize("text", ["", "f/", "f/0", "-2.8", "2.8 mm", "nan", "inf", "1e400", "f//2", "2,8"])
def test_what_is_no_f_number_is_refused_in_one_line(text):
    with pytest.raises(InputError, match="f-number above 0") as caught:
        APERTURE.parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("neutral", "ratio"), [(0.0, 0.25), (-5.6, 0.25), (math.inf, 0.25), (5.6, 0.0), (5.6, -1.0), (5.6, 1.0), (1e300, 1e-200)]
)
def test_impossible_laws_are_refused(neutral, ratio):
    with pytest.raises(InputError, match="aperture"):
        APERTURE.check_law(UnitLaw(neutral=neutral, ratio=ratio), 16)


def test_the_default_law_is_possible_and_the_image_is_left_alone():
    APERTURE.check_law(APERTURE.default_law, 16)
    frames = np.zeros((1, 4, 4, 3), dtype=np.float32)
    assert APERTURE.apply_image(frames, 2.8) is frames


# --- the profile -------------------------------------------------------------------------------------------------------


@given(st.floats(3.0, 40.0), st.floats(0.5, 1.0))
@settings(max_examples=25, deadline=None)
def test_closed_form_of_two_discs_is_their_numeric_convolution(wide_px, share):
    size = 2 * math.ceil(wide_px) + 5
    center = size / 2
    exact = fftconvolve(ball(size, center, center, wide_px), disc_kernel(share * wide_px), mode="same")
    y, x = (np.mgrid[0 : size * FINE, 0 : size * FINE] + 0.5) / FINE
    closed = overlap(np.hypot(x - center, y - center).ravel(), wide_px, share * wide_px).reshape(exact.shape)
    assert np.abs(closed - exact).max() < 0.06  # the fine grid's own stairs
    assert np.abs(closed - exact).mean() < 0.004


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20), st.floats(0.2, 5.0))
def test_pooling_shifts_with_the_data_and_shrugs_off_one_stray(logs, weight):
    values, weights = np.array(logs), np.full(len(logs), weight)
    assert pool(values + 0.5, weights) == pytest.approx(pool(values, weights) + 0.5, abs=1e-6)
    assert pool(np.array([0.1] * 6 + [9.0]), np.ones(7)) == pytest.approx(0.1)


# --- the blind probe on frames no renderer made ------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.0, 2.0])
def test_soft_lights_are_read_to_the_bar_and_in_order(sigma):
    rng = np.random.default_rng(11)
    discs_px = (2.0, 2.1, 3.0, 4.6, 4.8, 8.0, 14.0, 24.0, 36.0)
    errors, levels = [], []
    for disc_px in discs_px:
        reading = APERTURE.probe(film(lights(disc_px), sigma=sigma, frames=5, rng=rng), 16)
        assert reading.value is None and reading.confidence > 0.5
        ratios = []
        for x, y, _, share in LIGHTS:
            detection = min(
                reading.detections, key=lambda detection, x=x, y=y: math.hypot(detection.x_px - x, detection.y_px - y)
            )
            assert math.hypot(detection.x_px - x, detection.y_px - y) < 1.0
            ratios.append(math.log(detection.size_px / (share * disc_px)))
        errors.append(2 * np.mean(ratios) / math.log(2))
        levels.append(np.mean(ratios) + math.log(disc_px))
    assert np.median(np.abs(errors)) < 0.1
    assert np.max(np.abs(errors)) < 0.3
    assert spearmanr(discs_px, levels)[0] == 1.0


@pytest.mark.parametrize("disc_px", [4.0, 7.0, 12.0, 20.0])
def test_clipping_points_of_light_show_their_discs_over_a_blurred_texture(disc_px):
    rng = np.random.default_rng(5)
    places = [(40 + 63.4 * (index % 3), 40 + 62.7 * (index // 3)) for index in range(9)]
    points = sum(1.5 * to_pixels(ball(208, x, y, disc_px)) for x, y in places)
    spots = find_spots(film(0.3 * paper_cuts(1, disc_px) + points, sigma=2.0, frames=5, rng=rng))
    errors = [
        2 * math.log2(spot.blur_px / disc_px)
        for x, y in places
        for spot in spots
        if spot.clipped and math.hypot(spot.x_px - x, spot.y_px - y) < 1.5
    ]
    assert len(errors) >= 6
    assert np.median(np.abs(errors)) < 0.25


def test_relative_tells_a_lens_from_an_outline_by_what_changes():
    rng = np.random.default_rng(2)
    for wide_px, narrow_px in ((24.0, 6.0), (5.0, 9.0)):
        soft = [film(lights(disc_px), sigma=1.0, frames=3, rng=rng) for disc_px in (wide_px, narrow_px)]
        assert APERTURE.relative(*soft, 16) == pytest.approx(2 * math.log2(wide_px / narrow_px), abs=0.15)
        dim = [film(0.05 + 0.4 * sum(to_pixels(ball(208, x, y, d)) for x, y, _, _ in LIGHTS), sigma=1.0, frames=1, rng=rng)
               for d in (wide_px, narrow_px)]  # fmt: skip
        assert APERTURE.relative(*dim, 16) == pytest.approx(2 * math.log2(wide_px / narrow_px), abs=0.3)


def test_relative_reads_edges_where_no_spot_stands_out():
    rng = np.random.default_rng(3)
    errors, readings, truths = [], [], []
    for seed in (1, 2, 3):
        reference = film(paper_cuts(seed, 5.0), sigma=1.5, frames=1, rng=rng)
        assert not find_spots(reference)
        for disc_px in (2.5, 3.5, 5.0, 7.0, 10.0):
            reading = APERTURE.relative(film(paper_cuts(seed, disc_px), sigma=1.5, frames=1, rng=rng), reference, 16)
            assert reading is not None
            readings.append(reading)
            truths.append(2 * math.log2(disc_px / 5.0))
            errors.append(reading - truths[-1])
    assert np.median(np.abs(errors)) < 0.25
    assert spearmanr(readings, truths)[0] > 0.95


def test_what_shows_no_blur_disc_is_said_to_be_unreadable():
    sharp = to_bytes(np.repeat(lights(0.2)[None, ..., None], 3, axis=3))
    grey = np.full((5, 64, 64, 3), 119, dtype=np.uint8)
    square_HW = np.full((96, 96), 0.05)
    square_HW[30:66, 30:66] = 0.6
    square = to_bytes(np.repeat(ndimage.uniform_filter(square_HW, 4)[None, ..., None], 3, axis=3))
    for frames in (sharp, grey, square):
        reading = APERTURE.probe(frames, 16)
        assert (reading.confidence, reading.detections) == (0.0, ())
        assert "no blur disc" in reading.note
    assert APERTURE.relative(grey, grey, 16) is None
    assert APERTURE.relative(grey, square, 16) is None


@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=24).map(lambda shape: (*shape, 3))),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=30, deadline=None)
def test_any_frames_give_a_reading(frames, seed):
    rng = np.random.default_rng(seed)
    speckle = (rng.random((1, 80, 80, 1)) < 0.02) * rng.integers(0, 256, (1, 80, 80, 3))
    blobs = ndimage.gaussian_filter(speckle.astype(np.float64), (0, 2, 2, 0)) * 12
    for some in (frames, np.clip(blobs, 0, 255).astype(np.uint8)):
        reading = APERTURE.probe(some, 16)
        assert 0.0 <= reading.confidence <= 1.0
        assert (reading.confidence == 0.0) == (reading.note != "") == (not reading.detections)
        assert all(math.isfinite(detection.size_px) and detection.size_px > 0 for detection in reading.detections)
        other = APERTURE.relative(some, some[::-1], 16)
        assert other is None or math.isfinite(other)


# --- measuring against the closed form ---------------------------------------------------------------------------------


def test_measure_recovers_the_label_from_true_marks_and_is_signed():
    shot = Shot(width=512, height=512, fps=16, frames=1)
    scene = draw_scene(DEPTH_ROW, np.random.default_rng(4), shot, {"aperture": APERTURE.default_law})
    for labelled, real in ((5.6, 5.6), (5.6, 4.0), (22.4, 16.0), (1.4, 2.0)):
        detections = tuple(Detection(x_px=d.x_px, y_px=d.y_px, size_px=d.disc_px) for d in expected_discs(scene, real))
        stray = Detection(x_px=3.0, y_px=3.0, size_px=400.0)
        found = APERTURE.measure(
            Reading(value=None, confidence=0.9, detections=(*detections, stray)), scene, Optics(), labelled
        )
        assert found.judged and found.measured == pytest.approx(real)
        assert found.error == pytest.approx(2 * math.log2(labelled / real))


def test_what_cannot_be_read_is_a_failure_and_what_is_too_small_is_not_judged():
    shot = Shot(width=512, height=512, fps=16, frames=1)
    scene = draw_scene(DEPTH_ROW, np.random.default_rng(4), shot, {"aperture": APERTURE.default_law})
    blind = APERTURE.measure(Reading(value=None, confidence=0.0, note="no blur disc to measure"), scene, Optics(), 5.6)
    assert (blind.judged, blind.measured, blind.error, blind.note) == (True, None, None, "no blur disc to measure")
    detections = tuple(Detection(x_px=d.x_px, y_px=d.y_px, size_px=d.disc_px) for d in expected_discs(scene, 64.0))
    small = APERTURE.measure(Reading(value=None, confidence=1.0, detections=detections), scene, Optics(), 64.0)
    assert not small.judged and small.measured == pytest.approx(64.0) and "below 2 px" in small.note
