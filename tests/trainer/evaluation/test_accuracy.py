"""Accuracy, leakage and content from readings and pictures with known answers.

Array legend: P prompts, S seeds, N controls.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from evaluation_support import clip

from scenes.axes import AXES
from trainer.control.laws import AxisControl, NoLaw, axis_control
from trainer.evaluation.accuracy import AxisReads, accuracy, leakage, sharp_as_ties
from trainer.evaluation.drift import drift_rate
from trainer.evaluation.results import DriftPoint, Validated
from trainer.evaluation.similarity import flicker, outside_difference
from trainer.evaluation.verdict import MOST_ERROR, axis_line, nothing_read

# --- numbers from readings ------------------------------------------------------------------------------------------------


def reads(relative_PSN: np.ndarray, sharp_PSN: np.ndarray | None = None, absolute_PSN: np.ndarray | None = None) -> AxisReads:
    """Return readings of shutter at five controls."""
    controls = np.linspace(-1, 1, 5)
    axis = axis_control("shutter")
    empty = np.full(relative_PSN.shape, np.nan)
    return AxisReads(
        axis=axis,
        controls_N=controls,
        expected_N=controls * np.log2(5),
        relative_PSN=relative_PSN,
        absolute_PSN=empty if absolute_PSN is None else absolute_PSN,
        values_PSN=empty,
        sharp_PSN=np.zeros(relative_PSN.shape, dtype=bool) if sharp_PSN is None else sharp_PSN,
    )


def test_known_scale_and_noise_come_back() -> None:
    rng = np.random.default_rng(1)
    expected = np.linspace(-1, 1, 5) * np.log2(5)
    found = accuracy("a", reads(0.6 * expected + rng.normal(0, 0.05, (12, 3, 5))), rng)
    assert found.slope.value == pytest.approx(0.6, abs=0.03) and found.rho.value == pytest.approx(1.0)
    assert found.slope.low is not None and found.slope.low <= 0.6 <= (found.slope.high or 0) + 0.02
    assert found.median_error.value == pytest.approx(0.4 * np.log2(5) * 0.75, abs=0.1), "half lie at c = ±0.5, half at ±1"
    assert found.seed_spread == pytest.approx(0.05, abs=0.02)
    assert found.extrapolation == () and found.rho_absolute.value is None and found.share_read_absolute == 0.0


def test_unread_videos_are_left_out_and_never_help() -> None:
    nothing = accuracy("a", reads(np.full((4, 1, 5), np.nan)), np.random.default_rng(0))
    assert nothing.rho.value is None and nothing.slope.value is None and nothing.median_error.value is None
    assert nothing.share_read == 0.0 and axis_line(nothing, ()).startswith("shutter: the probe could read 0 %")
    partly = np.tile(np.linspace(-1, 1, 5) * np.log2(5), (4, 1, 1))
    partly[:, :, 0] = np.nan
    found = accuracy("a", reads(partly), np.random.default_rng(0))
    assert found.share_read == pytest.approx(0.75) and found.median_error.value == pytest.approx(0.0, abs=1e-9)


def test_sharp_videos_tie_below_the_others_in_a_number_of_its_own() -> None:
    absolute = np.array([[[np.nan, np.nan, 0.1, 1.1, 2.2]]])
    sharp = np.array([[[True, True, False, False, False]]])
    ties = sharp_as_ties(reads(np.full((1, 1, 5), np.nan), sharp, absolute))
    assert ties[0, 0, 0] == ties[0, 0, 1] < 0.1
    found = accuracy("a", reads(np.full((1, 1, 5), np.nan), sharp, absolute), np.random.default_rng(0))
    assert found.rho.value is None and found.rho_absolute.value == pytest.approx(1.0)
    assert found.rho_sharp_as_ties.value == pytest.approx(0.9747, abs=1e-3), "a tie of two is no perfect order"
    assert found.share_sharp == 0.5 and found.rho_sharp_as_ties.low is None, "one prompt has no interval"


def test_a_control_without_a_unit_law_has_a_rank_and_no_scale() -> None:
    controls = np.linspace(-1, 1, 5)
    lawless = AxisControl(name="temperature", law=NoLaw())
    known = reads(np.tile(controls, (4, 1, 1)))
    found = accuracy("a", replace(known, axis=lawless, expected_N=np.full(5, np.nan)), np.random.default_rng(0))
    assert found.rho.value == pytest.approx(1.0)
    assert found.slope.value is None and found.median_error.value is None
    assert all(point.value is None and point.expected is None for point in found.curve)
    assert axis_line(found, ()).startswith("temperature: ρ 1.00 between control and reading; this adapter states no unit law")


def judged(scale: float, share_read: float = 1.0, gap: float | None = None) -> str:
    """Return the sentence on a control whose readings are the commands times a scale; two prompts, which need no resampling."""
    relative = np.tile(scale * np.linspace(-1, 1, 5) * np.log2(5), (2, 10, 1))
    relative[:, : round(10 * (1 - share_read))] = np.nan
    validated = None if gap is None else Validated(step=600, loss=0.5, gap=gap)
    return axis_line(accuracy("a", reads(relative), np.random.default_rng(5)), (), None, validated)


def test_a_control_works_within_its_bounds_only_and_what_is_wrong_is_said() -> None:
    assert judged(1.0).startswith("shutter: the control works: a commanded stop gives 1.00 measured stops")
    assert judged(1.0, gap=0.01) == judged(1.0), "validation that agrees has nothing to add"
    for line, word in (
        (judged(1.27), "overshoots (0.8 to 1.25"),
        (judged(0.6), "falls short (0.8 to 1.25"),
        (judged(0.6), "off by more than 30 %"),
        (judged(1.0, share_read=0.7), "read in less than 80 %"),
        (judged(1.0, gap=-0.002), "contradicts the training's validation"),
    ):
        assert line.startswith("shutter: the control acts, but ") and word in line, line
    both = judged(1.27, gap=-0.002)
    assert "overshoots" in both and "no better than the neutral one (held-out loss 0.5 with the true control, 0.498" in both


def test_bounds_hold_for_scales_drawn_at_random() -> None:
    rng = np.random.default_rng(8)
    for scale in rng.uniform(-1.5, 2.0, 40):
        line = judged(float(scale))
        works = 0.8 <= scale <= 1.25 and abs(scale - 1) <= MOST_ERROR
        assert ("the control works:" in line) == works, (scale, line)


def test_too_few_readings_judge_nothing_however_true_they_are() -> None:
    line = judged(1.0, share_read=0.4)
    assert "too few to say whether the control works; of those that were read, ρ 1.00 and 1.00" in line
    assert "control acts" not in line


def test_no_control_in_videos_and_a_gain_in_validation_is_a_disagreement() -> None:
    assert "disagrees: something was learnt" in judged(0.0, gap=0.05) and "disagrees" not in judged(0.0, gap=0.0001)
    assert "disagrees" not in judged(0.0)


def test_nothing_read_is_no_result() -> None:
    rng = np.random.default_rng(0)
    nothing, one = accuracy("a", reads(np.full((4, 1, 5), np.nan)), rng), np.full((4, 1, 5), np.nan)
    one[0, 0, :2] = 0.5
    some = accuracy("a", reads(one), rng)
    assert nothing_read([nothing], "a") and not nothing_read([nothing, some], "a")
    assert nothing_read([nothing, some.model_copy(update={"arm": "b"})], "a"), "another arm's readings are not the adapter's"


def test_leakage_is_the_trend_as_a_share_of_what_the_other_control_gives() -> None:
    controls, axis = np.linspace(-1.5, 1.5, 7), axis_control("temperature")
    half = 0.5 * np.array([AXES["temperature"].distance(axis.law.value(float(c)), axis.law.value(0.0)) for c in controls])
    there = leakage("a", "shutter", axis, controls, np.stack([half, -half, half]))
    assert there.share == pytest.approx(0.5, abs=0.001) and there.sweeps == 3
    assert leakage("a", "temperature", axis, controls, np.stack([-half])).share == pytest.approx(-0.5, abs=0.001)
    unread = leakage("a", "shutter", axis, controls, np.full((2, 7), np.nan))
    assert unread.share is None and (unread.sweeps, unread.of) == (0, 2)


# --- content --------------------------------------------------------------------------------------------------------------


def picture(seed: int, frames: int = 3, side: int = 64) -> np.ndarray:
    """Return a smooth still picture, repeated."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(40, 215, (8, 8, 3))
    return np.repeat(np.kron(coarse, np.ones((side // 8, side // 8, 1)))[None].astype(np.uint8), frames, axis=0)


def test_a_cast_and_a_blur_are_no_difference_of_content_and_another_scene_is() -> None:
    same, other = clip("temperature", "temperature 1", 0.0), clip("temperature", "temperature 2", 0.0)
    warm = clip("temperature", "temperature 1", 0.5)
    assert outside_difference(same, same) == pytest.approx(0.0, abs=1e-6)
    cast, scene = outside_difference(warm, same), outside_difference(other, same)
    assert cast is not None and scene is not None and cast < 0.5 * scene
    short, long = clip("shutter", "shutter 0", 0.0), clip("shutter", "shutter 0", 1.0)
    blur = outside_difference(long, short)
    assert blur is not None and blur < 2.0, "the blur of what moves is left out"


def test_a_small_shift_is_compensated() -> None:
    still = picture(3)
    assert (outside_difference(np.roll(still, 1, axis=2), still) or 0.0) < 0.35 * (outside_difference(picture(4), still) or 0.0)
    assert outside_difference(still[:, :32], still) is None


def test_flicker_is_of_the_brightness_and_a_steady_change_is_none() -> None:
    still = picture(5, frames=6)
    steps = np.array([0, 10, 0, 10, 0, 10])[:, None, None, None]
    assert flicker(still) == 0.0
    assert flicker((still * 0.5 + 4 * np.arange(6)[:, None, None, None]).astype(np.uint8)) == pytest.approx(0.0, abs=0.5)
    assert flicker((still * 0.5 + steps).astype(np.uint8)) == pytest.approx(20.0, abs=0.5)
    assert flicker(still[:2]) is None


def test_the_drift_rate_is_per_thousand_steps() -> None:
    points = [DriftPoint(step=step, ssf=1.0, ss_fd=3.0 + 0.002 * step) for step in (0, 100, 300, 1000)]
    assert drift_rate(points) == pytest.approx(2.0)
    assert drift_rate(points[:1]) is None
