"""The unit law of every axis, of a ratio or of a step: inverse, direction, and what a recipe may override."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generator.recipe.schema import AxisLaw, Law
from generator.verify.plot import value_at_distance
from scenes.axes import AXES, UnitLaw
from scenes.axes.ticks import even_values

ratio_laws = st.builds(UnitLaw, neutral=st.floats(1e-4, 1e5), ratio=st.one_of(st.floats(0.05, 0.9), st.floats(1.1, 20.0)))
step_laws = st.builds(UnitLaw, neutral=st.floats(-100.0, 100.0), step=st.one_of(st.floats(-10.0, -0.1), st.floats(0.1, 10.0)))
laws = st.one_of(ratio_laws, step_laws)
controls = st.floats(-2.0, 2.0)


@given(laws, controls)
def test_a_value_has_its_control_and_the_array_says_the_same(law: UnitLaw, control: float) -> None:
    assert law.control(law.value(control)) == pytest.approx(control, abs=1e-7)
    assert law.value(0.0) == law.neutral
    assert law.values(np.array([control, 0.0])) == pytest.approx([law.value(control), law.neutral], rel=1e-12, abs=1e-12)


@given(laws)
def test_a_turned_law_has_its_ends_exchanged(law: UnitLaw) -> None:
    turned = law.turned()
    assert turned.additive == law.additive and turned.rises != law.rises
    assert law.rises == (law.value(1.0) > law.value(-1.0))
    for control in (-1.0, 0.0, 0.3, 1.0):
        assert turned.value(control) == pytest.approx(law.value(-control), rel=1e-12, abs=1e-12)


@given(ratio_laws, controls)
def test_a_law_of_a_ratio_is_what_it_was_to_the_last_bit(law: UnitLaw, control: float) -> None:
    """Plans of earlier recipes keep their bytes."""
    assert law.value(control) == law.neutral * math.pow(law.ratio, control)


@given(step_laws, controls, controls)
def test_equal_steps_of_an_additive_law_add_equal_amounts(law: UnitLaw, first: float, second: float) -> None:
    assert law.value(first) - law.value(second) == pytest.approx(law.step * (first - second), abs=1e-9)


def test_a_law_is_of_one_kind() -> None:
    with pytest.raises(ValueError, match=r"ratio 2 and step 1"):
        UnitLaw(neutral=1.0, ratio=2.0, step=1.0)


@given(laws, laws)
def test_what_a_recipe_writes_of_a_law_gives_that_law(default: UnitLaw, other: UnitLaw) -> None:
    """The keys that messages ask people to write are the keys that a recipe reads."""
    keys = dict(one.split(" = ") for one in other.recipe_keys())
    override = Law.model_validate({name: float(value) for name, value in keys.items()})
    if default.additive == other.additive:
        override.check_kind(default, "axes.any")
        found = override.over(default)
        assert found.value(0.7) == pytest.approx(other.value(0.7), rel=1e-8, abs=1e-7)
    else:
        with pytest.raises(ValueError, match=r"^axes\.any\.(ratio|step) = .*give (step|ratio) instead$"):
            override.check_kind(default, "axes.any")
    assert Law().over(default) == default


@pytest.mark.parametrize(
    ("keys", "default", "words"),
    [
        ({"step": 0.0}, UnitLaw(neutral=0.0, step=2.0), r"axes\.x\.step = 0: .*such as 2"),
        ({"neutral": 0.0}, UnitLaw(neutral=5.6, ratio=0.25), r"axes\.x\.neutral = 0: .*above 0, such as 5\.6"),
        ({"ratio": 2.0}, UnitLaw(neutral=0.0, step=2.0), r"axes\.x\.ratio = 2: .*neutral 0, step 2; give step"),
    ],
)
def test_a_law_of_the_wrong_kind_is_named(keys: dict[str, float], default: UnitLaw, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Law(**keys).check_kind(default, "axes.x")


def test_plans_of_recipes_without_a_step_do_not_name_one() -> None:
    kept = AxisLaw(neutral=0.01, layout=Law(ratio=3.0)).model_dump(mode="json")
    assert kept == {"neutral": 0.01, "ratio": None, "layout": {"neutral": None, "ratio": 3.0}}
    assert Law(step=1.5).model_dump()["step"] == 1.5


@pytest.mark.parametrize("axis", AXES)
def test_a_band_of_the_plot_lies_at_its_distance(axis: str) -> None:
    law = AXES[axis].default_law
    for control in (-0.9, 0.0, 0.8):
        for distance in (-0.1, 0.1):
            value = value_at_distance(axis, law.value(control), distance)
            assert AXES[axis].distance(value, law.value(control)) == pytest.approx(distance, abs=1e-6)


@given(st.floats(-50.0, 50.0), st.floats(0.01, 100.0), st.integers(2, 12))
def test_an_even_scale_has_few_round_values_within_its_ends(low: float, wide: float, most: int) -> None:
    ticks = even_values(low, low + wide, most)
    assert len(ticks) <= most and ticks == sorted(ticks)
    assert all(low - 1e-6 * wide <= tick <= low + wide * (1 + 1e-6) for tick in ticks)
    assert len(ticks) >= (most - 1) / 2.5 - 1
    steps = np.diff(ticks)
    assert steps.size == 0 or np.allclose(steps, steps[0])


def test_the_constants_of_a_law_are_replaced_one_by_one() -> None:
    assert replace(UnitLaw(neutral=0.0, step=2.0), neutral=0.5) == UnitLaw(neutral=0.5, step=2.0)
