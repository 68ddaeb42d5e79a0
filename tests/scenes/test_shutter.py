"""The `shutter` axis: its law and units, and its blind probe on procedural frames, on real renders and on junk."""

from __future__ import annotations

import math

import numpy as np
import pytest
from blender_child import run_in_blender
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from shutter_clips import FPS, Clip, procedural, stops_off

from generator.media.video import decode, encode
from generator.recipe.render_settings import RenderSettings
from scenes.axes.shutter.axis import Shutter, expected_motion
from scenes.axes.shutter.tracking import find_backdrop, find_blobs, find_tracks
from scenes.control_axis import Detection, Reading, UnitLaw, Unread
from scenes.errors import InputError
from scenes.families.base import draw_scene
from scenes.families.flyby import FLYBY
from scenes.spec import Optics, SceneSpec, Shot

SHUTTER = Shutter()
LAW = SHUTTER.default_law


@given(st.floats(-1.0, 1.0))
def test_the_law_and_its_words_round_trip(control):
    value = LAW.value(control)
    assert LAW.control(value) == pytest.approx(control, abs=1e-9)
    assert SHUTTER.parse(SHUTTER.format(value)) == pytest.approx(value, rel=0.005)
    assert SHUTTER.distance(value, LAW.neutral) == pytest.approx(control * math.log2(5), abs=1e-9)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1/50", 0.02),
        ("0.02", 0.02),
        ("20ms", 0.02),
        ("1/50s", 0.02),
        (" 1/50 s ", 0.02),
        ("2", 2.0),
        ("1e-3", 0.001),
        (".5 S", 0.5),
    ],
)
def test_people_s_ways_to_write_a_time_are_understood(text, seconds):
    assert SHUTTER.parse(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "fast", "-1/50", "1/0", "0", "f/2", "3200K", "1/50/2", "nan", "inf", "1e999"])
def test_what_is_no_time_is_refused_in_one_line(text):
    with pytest.raises(InputError) as caught:
        SHUTTER.parse(text)
    assert repr(text) in str(caught.value) or f"'{text}'" in str(caught.value)
    assert "1/50" in str(caught.value) and "\n" not in str(caught.value)


def test_values_are_written_as_on_a_camera():
    assert [SHUTTER.format(value) for value in (1 / 80, 1 / 16, 1 / 400, 0.5, 1 / 33.3)] == [
        "1/80",
        "1/16",
        "1/400",
        "0.5s",
        "1/33.3",
    ]


@pytest.mark.parametrize("fps", [1, 8, 15, 16])
def test_exposures_up_to_the_frame_interval_are_allowed(fps):
    SHUTTER.check_law(LAW, fps)
    SHUTTER.check_law(UnitLaw(neutral=1 / (3 * fps), ratio=3.0), fps)
    SHUTTER.check_law(UnitLaw(neutral=1 / (3 * fps), ratio=1 / 3), fps)


@pytest.mark.parametrize(
    ("law", "fps", "word"),
    [
        (LAW, 17, "1/17"),
        (UnitLaw(neutral=1 / 80, ratio=0.19), 16, "1/16"),
        (UnitLaw(neutral=0.0, ratio=5.0), 16, "neutral"),
        (UnitLaw(neutral=-0.01, ratio=5.0), 16, "neutral"),
        (UnitLaw(neutral=0.01, ratio=0.0), 16, "ratio"),
        (UnitLaw(neutral=0.01, ratio=-2.0), 16, "ratio"),
        (UnitLaw(neutral=0.01, ratio=1.0), 16, "ratio"),
        (UnitLaw(neutral=math.nan, ratio=5.0), 16, "neutral"),
    ],
)
def test_impossible_laws_are_refused(law, fps, word):
    with pytest.raises(InputError, match=word):
        SHUTTER.check_law(law, fps)


def test_the_axis_acts_on_the_camera_alone():
    frames = np.zeros((1, 4, 4, 3), dtype=np.float32)
    assert SHUTTER.apply_image(frames, 0.02) is frames
    assert SHUTTER.apply_optics(Optics(f_number=4.0), 0.02) == Optics(f_number=4.0, exposure_s=0.02)


@pytest.mark.parametrize("textured", [False, True], ids=["flat", "textured"])
@pytest.mark.parametrize("share", [0.12, 0.25, 0.5, 1.0])
def test_procedural_clips_are_read_within_the_tolerance(textured, share):
    own = {"side": 256, "frames": 9, "size_share": 0.14, "textured": True} if textured else {}
    clips = [procedural(seed, share, noise=2.0 if seed % 2 else 0.0, **own) for seed in range(6)]
    assert all(clip.blur_px > 1.3 for clip in clips)
    errors = [abs(stops_off(SHUTTER.probe(clip.frames, FPS), clip)) for clip in clips]
    assert np.median(errors) <= 0.07 and max(errors) <= 0.35


def test_stills_show_blur_lengths_but_no_time():
    ratios = []
    for seed in range(8):
        clip = procedural(seed, 0.1 + 0.1 * seed, frames=1)
        reading = SHUTTER.probe(clip.frames, FPS)
        assert reading.value is None and reading.confidence > 0 and len(reading.detections) == 1
        ratios.append(math.log2(reading.detections[0].size_px / clip.blur_px))
    assert np.median(np.abs(ratios)) <= 0.07


def test_the_reading_follows_the_exposure_in_order():
    for seed in range(3):
        shares = np.exp(np.linspace(math.log(0.06), 0.0, 9) + np.random.default_rng(seed).uniform(-0.1, 0.1, 9))
        readings = [SHUTTER.probe(procedural(seed, float(share)).frames, FPS).value for share in np.minimum(shares, 1.0)]
        assert None not in readings
        assert spearmanr(readings, shares).statistic >= 0.99


def test_frames_per_second_only_scale_the_time():
    clip = procedural(1, 0.4)
    slow, fast = SHUTTER.probe(clip.frames, 8), SHUTTER.probe(clip.frames, 24)
    assert slow.value == pytest.approx(3 * fast.value)


def test_turning_and_mirroring_the_picture_changes_little():
    clip = procedural(2, 0.4)
    values = [
        SHUTTER.probe(np.ascontiguousarray(turned), FPS).value
        for turned in (
            clip.frames,
            clip.frames[:, ::-1],
            clip.frames[:, :, ::-1],
            clip.frames.transpose(0, 2, 1, 3),
            clip.frames[::-1],
        )
    ]
    assert np.ptp(np.log2(values)) < 0.05


def test_relative_readings_compare_clips_and_stills():
    neutral, long = procedural(3, 0.2), procedural(3, 0.8)
    assert SHUTTER.relative(long.frames, neutral.frames, FPS) == pytest.approx(2.0, abs=0.12)
    assert SHUTTER.relative(neutral.frames, long.frames, FPS) == pytest.approx(-2.0, abs=0.12)
    assert SHUTTER.relative(long.frames[2:3], neutral.frames[2:3], FPS) == pytest.approx(2.0, abs=0.15)
    assert SHUTTER.relative(np.zeros_like(long.frames), neutral.frames, FPS) is None


def test_what_shows_no_motion_is_not_guessed():
    clip = procedural(4, 0.5)
    still = np.repeat(clip.frames[:1], 5, axis=0)
    empty = np.full_like(clip.frames, 90)
    sharp = procedural(4, 0.0005).frames
    for frames, why in ((still, Unread.NOT_MOVING), (empty, Unread.NOT_SEEN), (sharp, Unread.TOO_SHARP)):
        reading = SHUTTER.probe(frames, FPS)
        assert reading.value is None and reading.confidence == 0.0 and reading.unread is why and reading.note
    assert SHUTTER.probe(clip.frames, FPS).unread is None
    assert SHUTTER.probe(still[:1], FPS).unread is Unread.NO_SCALE  # its blur is read, and a still shows no speed


def hazed(clip: Clip, seed: int, off_px: int = 2) -> np.ndarray:
    """Return a clip as a generated video shows it: a streak of haze from the thing to the rim, a thing off its even path."""
    rng = np.random.default_rng(seed)
    frames = clip.frames.astype(np.float64)
    change = frames - np.median(frames, axis=0)
    made = []
    for frame, moved in zip(frames, change, strict=True):
        thing = np.abs(moved).max(axis=-1) > 25
        middle = int(np.nonzero(thing)[1].mean())
        hazy = frame.copy()
        hazy[:, middle - 4 : middle + 5] += 0.15 * moved[thing].mean(axis=0)
        shifted = np.roll(hazy, rng.integers(-off_px, off_px + 1, 2), axis=(0, 1))
        made.append(np.clip(np.rint(shifted), 0, 255).astype(np.uint8))
    return np.stack(made)


def test_haze_and_an_uneven_path_do_not_hide_a_thing():
    for seed in range(4):
        clips = [procedural(seed, share, size_share=0.24, kind="box", contrast=0.3) for share in (0.2, 0.45, 1.0)]
        seen = [hazed(clip, seed) for clip in clips]
        blobs = find_blobs(seen[1], find_backdrop(seen[1]))
        assert not find_tracks(blobs, 2.0)
        errors = [stops_off(SHUTTER.probe(frames, FPS), clip) for frames, clip in zip(seen, clips, strict=True)]
        assert max(abs(error) for error in errors) < 0.2


def test_a_comparison_bears_softness_and_uneven_paths_better_than_two_readings():
    """As in generated videos: soft edges that no motion made, haze, and a path that differs between the clips."""
    apart, together = [], []
    for seed in range(6):
        plain, reference = (soft(procedural(seed, 0.3, side=96, frames=9).frames) for _ in range(2))
        assert SHUTTER.relative(plain, reference, FPS) == pytest.approx(0.0, abs=1e-6)
        for share in (0.45, 0.9):
            frames = soft(hazed(procedural(seed, share, side=96, frames=9), seed + 1, 3))
            values = [SHUTTER.probe(clip, FPS).value for clip in (frames, reference)]
            found = SHUTTER.relative(frames, reference, FPS)
            if None not in (*values, found):
                apart.append(abs(math.log2(values[0] / values[1]) - math.log2(share / 0.3)))
                together.append(abs(found - math.log2(share / 0.3)))
    assert len(together) >= 10 and np.median(together) < 0.9 * np.median(apart)


def soft(frames: np.ndarray) -> np.ndarray:
    """Return frames through a Gaussian of 1.5 pixels."""
    return np.clip(np.rint(gaussian_filter(frames.astype(np.float64), (0, 1.5, 1.5, 0))), 0, 255).astype(np.uint8)


def test_a_slow_thing_over_texture_is_refused():
    for seed in range(3):
        reading = SHUTTER.probe(procedural(seed, 1.0, textured=True).frames, FPS)
        assert reading.value is None and reading.confidence == 0.0 and "hidden" in reading.note
        assert "few" in SHUTTER.probe(procedural(seed, 1.0, textured=True, frames=1).frames, FPS).note


def test_low_contrast_lowers_confidence_or_is_refused():
    clip = procedural(5, 0.5, crf=None)
    flat = np.rint(120 + (clip.frames.astype(float) - 120) * 0.02).astype(np.uint8)
    assert SHUTTER.probe(flat, FPS).confidence < SHUTTER.probe(clip.frames, FPS).confidence


@settings(max_examples=150, deadline=None)
@given(
    hnp.arrays(
        np.uint8,
        st.tuples(st.integers(1, 6), st.integers(1, 40), st.integers(1, 40), st.just(3)),
        elements=st.integers(0, 255),
        fill=st.integers(0, 255),
    )
)
def test_any_bytes_give_a_reading(frames):
    reading = SHUTTER.probe(frames, FPS)
    assert 0.0 <= reading.confidence <= 1.0
    assert (reading.value is None or reading.value > 0) and (reading.confidence > 0 or reading.note)


@pytest.mark.parametrize("frames", [1, 2, 5, 9])
def test_noise_and_moving_noise_give_a_reading(frames):
    rng = np.random.default_rng(frames)
    noise = rng.integers(0, 256, (frames, 96, 128, 3), dtype=np.uint8)
    blobs = np.full((frames, 96, 128, 3), 60, dtype=np.uint8)
    for frame in range(frames):
        blobs[frame, 30:60, 10 + 8 * frame : 45 + 8 * frame] = rng.integers(0, 256, (30, 35, 3), dtype=np.uint8)
    for clip in (noise, blobs):
        reading = SHUTTER.probe(clip, FPS)
        assert reading.value is None or reading.confidence < 0.9


def scene_at(seed: int, frames: int, side: int) -> SceneSpec:
    shot = Shot(width=side, height=side, fps=FPS, frames=frames)
    return draw_scene(FLYBY, np.random.default_rng(seed), shot, {"shutter": LAW})


def test_measure_holds_a_reading_against_the_closed_form():
    scene = scene_at(1, 5, 512)
    exact = Reading(value=0.02, confidence=0.9)
    measured = SHUTTER.measure(exact, scene, Optics(exposure_s=0.02), 0.02)
    assert measured.error == pytest.approx(0.0) and measured.judged and measured.confidence == 0.9
    off = SHUTTER.measure(Reading(value=0.04, confidence=0.9), scene, Optics(exposure_s=0.02), 0.02)
    assert off.error == pytest.approx(1.0) and off.judged
    short = SHUTTER.measure(exact, scene, Optics(exposure_s=1e-5), 1e-5)
    assert not short.judged and "below" in short.note
    blind = SHUTTER.measure(Reading(value=None, confidence=0.0, note="nothing moves"), scene, Optics(), 0.02)
    assert blind.measured is None and blind.error is None and blind.judged and blind.note == "nothing moves"


def test_measure_reads_a_still_through_the_closed_form_speed():
    scene = scene_at(2, 1, 512)
    detections = tuple(
        Detection(x_px=one.x_px + 1, y_px=one.y_px - 1, size_px=one.speed_px_per_s * 0.03) for one in expected_motion(scene)
    )
    measured = SHUTTER.measure(Reading(value=None, confidence=0.8, detections=detections), scene, Optics(), 0.02)
    assert measured.measured == pytest.approx(0.03) and measured.error == pytest.approx(math.log2(1.5)) and measured.judged
    astray = Reading(value=None, confidence=0.8, detections=(Detection(x_px=-900.0, y_px=-900.0, size_px=9.0),))
    lost = SHUTTER.measure(astray, scene, Optics(), 0.02)
    assert lost.measured is None and lost.judged and lost.note


def render_sweep(scene_json: str, controls: list[float]) -> list[np.ndarray]:
    from generator.render.scene_renderer import SceneRenderer
    from scenes.palette import to_bytes

    renderer = SceneRenderer(SceneSpec.model_validate_json(scene_json), RenderSettings(), 1)
    return [to_bytes(renderer.frames(Optics(exposure_s=LAW.value(control)))) for control in controls]


def test_renders_are_read_within_the_tolerance_and_in_order():
    errors = []
    for seed, frames in ((0, 5), (3, 1)):
        scene = scene_at(seed, frames, 192)
        controls = [-0.6, -0.2, 0.1, 0.15, 0.5, 0.98]
        measured = []
        for control, clip in zip(controls, run_in_blender(render_sweep, scene.model_dump_json(), controls), strict=True):
            reading = SHUTTER.probe(decode(encode(clip, FPS, 12, "medium")), FPS)
            measured.append(SHUTTER.measure(reading, scene, Optics(), LAW.value(control)))
        errors += [abs(one.error) for one in measured if one.judged]
        assert spearmanr([one.measured for one in measured], controls).statistic >= 0.99
    assert len(errors) >= 10 and np.median(errors) <= SHUTTER.tolerance
