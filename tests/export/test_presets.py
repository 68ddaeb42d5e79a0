"""The named presets of sign and scale, against the published law, and as folder names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generator.export.presets import CONTROL_PRESETS, written
from scenes.axes import AXES
from scenes.errors import InputError

theirs = CONTROL_PRESETS["less-is-more"].scalar
controls = st.floats(-1.5, 1.5)


@given(controls)
def test_their_shutter_scalar_gives_the_exposure_back(control: float) -> None:
    exposure_s = AXES["shutter"].default_law.value(control)
    assert 0.020 * 5 ** -theirs("shutter", exposure_s, control) == pytest.approx(exposure_s, rel=1e-12)


@given(controls)
def test_their_temperature_scalar_gives_the_mired_back(control: float) -> None:
    kelvin = AXES["temperature"].default_law.value(control)
    assert 275 - 225 * theirs("temperature", kelvin, control) == pytest.approx(1e6 / kelvin, rel=1e-12)


@pytest.mark.parametrize("axis", list(AXES))
@given(st.tuples(controls, controls).filter(lambda pair: pair[0] + 1e-6 < pair[1]))
def test_their_sign_is_the_other_way_round(axis: str, pair: tuple[float, float]) -> None:
    law = AXES[axis].default_law
    low, high = (theirs(axis, law.value(control), control) for control in pair)
    assert low > high


def test_known_values_of_their_scale() -> None:
    assert theirs("shutter", 0.1, 0) == pytest.approx(-1) and theirs("shutter", 0.004, 0) == pytest.approx(1)
    assert theirs("temperature", 2000, 0) == pytest.approx(-1) and theirs("temperature", 20000, 0) == pytest.approx(1)
    assert theirs("aperture", 5.6, 0) == pytest.approx(0) and theirs("aperture", 1.4, 1) == pytest.approx(-1)


def test_an_axis_that_they_do_not_have_is_refused() -> None:
    with pytest.raises(InputError, match="no scale for the axis 'iso'"):
        theirs("iso", 800.0, 0.3)


@given(st.floats(-10, 10))
def test_a_written_scalar_is_read_back_and_joins_without_doubt(scalar: float) -> None:
    text = written(scalar)
    assert float(text) == pytest.approx(scalar, abs=5e-7)
    assert "e" not in text and "_" not in text and text != "-0"
    assert [float(part) for part in f"{text}_{text}".split("_")] == [float(text), float(text)]
