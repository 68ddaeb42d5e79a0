"""Laws of the distances between feature sets and of the numbers drawn from sweeps."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_support import Thumbnail
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from scenes.errors import InputError
from trainer.config.evaluate import EvaluateSettings, parse_controls
from trainer.evaluation.features.distances import (
    Gaussian,
    fit_gaussian,
    frechet_distance,
    gaussian_distance,
    paired_similarity,
    variance_ratio,
)
from trainer.probing.statistics import bootstrap, median_error, rank_correlation, resolution, slope

seeds = st.integers(0, 2**32 - 1)


def random_gaussian(rng: np.random.Generator, width: int) -> Gaussian:
    factor_DD = rng.normal(size=(width, width))
    return Gaussian(mean_D=rng.normal(size=width), covariance_DD=factor_DD @ factor_DD.T, shrinkage=0.0)


@given(seeds, st.integers(1, 8))
def test_the_distance_of_gaussians_is_the_closed_form(seed: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    ours, theirs = random_gaussian(rng, width), random_gaussian(rng, width)
    cross = np.trace(np.real(sqrtm(ours.covariance_DD @ theirs.covariance_DD)))
    apart = np.square(ours.mean_D - theirs.mean_D).sum()
    expected = apart + np.trace(ours.covariance_DD) + np.trace(theirs.covariance_DD) - 2 * cross
    assert gaussian_distance(ours, theirs) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_diagonal_gaussians_are_as_far_apart_as_their_deviations() -> None:
    ours = Gaussian(mean_D=np.array([1.0, 0.0]), covariance_DD=np.diag([4.0, 1.0]), shrinkage=0.0)
    theirs = Gaussian(mean_D=np.array([0.0, 2.0]), covariance_DD=np.diag([1.0, 9.0]), shrinkage=0.0)
    assert gaussian_distance(ours, theirs) == pytest.approx(1 + 4 + (2 - 1) ** 2 + (3 - 1) ** 2)


@settings(max_examples=25)
@given(seeds)
def test_many_samples_find_the_distance_of_what_they_came_from(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ours, theirs = random_gaussian(rng, 4), random_gaussian(rng, 4)
    sets = [rng.multivariate_normal(g.mean_D, g.covariance_DD, 20_000) for g in (ours, theirs)]
    true = gaussian_distance(ours, theirs)
    scale = np.trace(ours.covariance_DD) + np.trace(theirs.covariance_DD)
    assert frechet_distance(*sets) == pytest.approx(true, rel=0.05, abs=0.02 * scale)


@given(seeds, st.integers(8, 20), st.integers(2, 200))
def test_few_samples_of_wide_features_have_a_finite_distance_and_none_to_themselves(seed: int, count: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    ours_ND, theirs_ND = rng.normal(size=(2, count, width))
    there, back = frechet_distance(ours_ND, theirs_ND), frechet_distance(theirs_ND, ours_ND)
    assert np.isfinite(there) and there == pytest.approx(back, rel=1e-6, abs=1e-8)
    assert frechet_distance(ours_ND, ours_ND) == pytest.approx(0.0, abs=1e-6 * width)
    assert 0.0 <= fit_gaussian(ours_ND).shrinkage <= 1.0
    assert frechet_distance(ours_ND, theirs_ND + 10.0) > there


def test_shrinking_brings_a_small_set_nearer_to_the_truth() -> None:
    rng = np.random.default_rng(3)
    errors = []
    for _ in range(40):
        sample_ND = rng.normal(size=(12, 40))
        shrunk = fit_gaussian(sample_ND).covariance_DD
        errors.append((np.square(shrunk - np.eye(40)).sum(), np.square(np.cov(sample_ND.T) - np.eye(40)).sum()))
    shrunk_error, plain_error = np.mean(errors, axis=0)
    assert shrunk_error < 0.1 * plain_error


def test_similarity_and_variance_are_one_for_the_same_videos() -> None:
    features_ND = np.random.default_rng(0).normal(size=(12, 6))
    assert paired_similarity(features_ND, 3.0 * features_ND) == pytest.approx(1.0)
    assert paired_similarity(features_ND, -features_ND) == pytest.approx(-1.0)
    assert variance_ratio(2.0 * features_ND + 1.0, features_ND) == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        (np.ones((7, 3)), np.ones((9, 3)), "7 videos are too few"),
        (np.ones((9, 3)), np.ones((9, 4)), "different extractors"),
        (np.full((9, 3), np.nan), np.ones((9, 3)), "not finite"),
    ],
)
def test_sets_that_have_no_distance_are_refused(ours: np.ndarray, theirs: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words):
        frechet_distance(ours, theirs)


def test_a_true_sweep_scores_one_and_an_unread_one_scores_nothing() -> None:
    expected_N = np.linspace(-2.3, 2.3, 7)
    assert rank_correlation(expected_N, expected_N) == pytest.approx(1.0)
    assert rank_correlation(expected_N, -expected_N) == pytest.approx(-1.0)
    assert slope(expected_N, 0.5 * expected_N + 3.0) == pytest.approx(0.5)
    assert np.isnan(rank_correlation(expected_N, np.full(7, np.nan)))
    unread_N = np.where(np.arange(7) < 5, np.nan, expected_N)
    assert np.isnan(rank_correlation(expected_N, unread_N)), "two readings have no rank"
    assert median_error(expected_N, expected_N + 0.25) == pytest.approx(0.25)
    assert median_error(expected_N, unread_N) == pytest.approx(0.0)


@settings(max_examples=30)
@given(seeds)
def test_shuffled_labels_lose_the_correlation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    expected_N = np.linspace(-1, 1, 9)
    rhos = [rank_correlation(rng.permutation(expected_N), expected_N) for _ in range(200)]
    assert abs(np.median(rhos)) < 0.25


def test_resolution_is_the_step_that_noise_leaves_in_order() -> None:
    rng = np.random.default_rng(5)
    controls_N = np.linspace(-1, 1, 9)
    exact = resolution(controls_N, np.tile(controls_N, (40, 1)))
    noisy = resolution(controls_N, controls_N + rng.normal(scale=0.3, size=(40, 9)))
    assert exact == pytest.approx(0.25)
    assert exact < noisy <= 1.25
    assert np.isnan(resolution(controls_N, rng.normal(size=(40, 9))))


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(9)
    held = 0
    for _ in range(60):
        values_P = rng.normal(size=30)
        interval = bootstrap(lambda chosen, values=values_P: float(values[chosen].mean()), 30, rng)
        held += interval.low <= 0.0 <= interval.high
    assert held >= 50


def test_controls_hold_zero_and_are_ascending() -> None:
    assert parse_controls("-1.5..1.5:4") == (-1.5, -0.5, 0.0, 0.5, 1.5)
    assert parse_controls("1,-1") == (-1.0, 0.0, 1.0)
    for wrong in ("0", "0,0.0", "a", "-1..1:1", "-1..1:500", "nan,1,2", "-40,40"):
        with pytest.raises(InputError, match="controls"):
            parse_controls(wrong)


def test_the_thumbnail_of_a_video_is_its_colours() -> None:
    assert np.allclose(Thumbnail().video(np.full((2, 8, 8, 3), 7, np.uint8)), 8.0)


def test_a_control_guidance_without_an_unconditional_pass_is_refused_before_anything_is_made() -> None:
    with pytest.raises(ValueError, match="control_guidance 3 needs the unconditional pass, and guidance 1 has none"):
        EvaluateSettings(guidance=1.0, control_guidance=3.0)
    assert EvaluateSettings(guidance=1.0, control_guidance=1.0).control_guidance == 1.0
    assert EvaluateSettings(control_guidance=3.0).guidance is None
