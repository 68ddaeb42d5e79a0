"""Laws of the control draws: one uniform draw per bin, redrawn per scene, keyed by identity and never by order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from generator.recipe.sampling import clips_per_scene, control_values, even, stratified

COUNTS = st.integers(1, 40)
SEEDS = st.integers(0, 2**63 - 1)


def bins(values: list[float]) -> list[int]:
    count = len(values)
    return [min(count - 1, int((value + 1) / 2 * count)) for value in values]


@given(count=COUNTS, seed=SEEDS)
def test_every_bin_holds_exactly_one_value(count: int, seed: int) -> None:
    values = stratified(np.random.default_rng(seed), count)
    assert bins(values) == list(range(count))


def test_the_draw_in_a_bin_is_uniform() -> None:
    rng = np.random.default_rng(1)
    draws = np.array([stratified(rng, 5) for _ in range(2000)])
    within_bin = (draws + 1) / 2 * 5 - np.arange(5)
    assert kstest(within_bin.ravel(), "uniform").pvalue > 1e-3


def test_values_are_drawn_anew_for_every_scene() -> None:
    scenes = {
        tuple(c["shutter"] for c in control_values("pyramid", ["shutter"], seed=1, family="flyby", layer=5, frames=9, scene=n))
        for n in range(50)
    }
    assert len(scenes) == 50


@given(seed=SEEDS, layer=st.integers(2, 12), scene=st.integers(0, 10**6))
def test_several_axes_form_a_latin_hypercube(seed: int, layer: int, scene: int) -> None:
    axes = ["shutter", "aperture", "temperature"]
    clips = control_values("pyramid", axes, seed=seed, family="studio", layer=layer, frames=9, scene=scene)
    assert len(clips) == layer
    for axis in axes:
        assert sorted(bins([clip[axis] for clip in clips])) != []
        assert bins(sorted(clip[axis] for clip in clips)) == list(range(layer))


def test_the_pairing_of_axes_is_random() -> None:
    orders = set()
    for scene in range(40):
        clips = control_values("pyramid", ["shutter", "aperture"], seed=3, family="studio", layer=5, frames=9, scene=scene)
        orders.add(tuple(np.argsort([clip["aperture"] for clip in clips])))
    assert len(orders) > 20


@given(seed=SEEDS)
def test_adding_an_axis_leaves_the_values_of_the_first_as_they_were(seed: int) -> None:
    key = {"seed": seed, "family": "studio", "layer": 7, "frames": 5, "scene": 2}
    alone = control_values("pyramid", ["shutter"], **key)
    both = control_values("pyramid", ["shutter", "temperature"], **key)
    assert [clip["shutter"] for clip in alone] == [clip["shutter"] for clip in both]


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_even_values_are_spaced_evenly_and_reach_both_ends(count: int) -> None:
    values = even(count)
    assert len(values) == count
    if count == 1:
        assert values == [0.0]
    else:
        assert values[0] == -1.0 and values[-1] == 1.0
        assert np.allclose(np.diff(values), 2 / (count - 1))


def test_the_grid_crosses_every_value_of_every_axis() -> None:
    clips = control_values("grid", ["shutter", "aperture"], seed=0, family="studio", layer=3, frames=9, scene=0)
    assert len(clips) == clips_per_scene("grid", 3, 2) == 9
    assert {(clip["shutter"], clip["aperture"]) for clip in clips} == {(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)}


def test_uniform_draws_are_not_stratified() -> None:
    filled = [
        len(
            set(
                bins(
                    [
                        c["shutter"]
                        for c in control_values("uniform", ["shutter"], seed=s, family="f", layer=9, frames=9, scene=0)
                    ]
                )
            )
        )
        for s in range(30)
    ]
    assert min(filled) < 9
