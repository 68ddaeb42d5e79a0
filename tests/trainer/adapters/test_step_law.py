"""An additive law travels with an adapter: it is written and read exactly, and another one folds into the weights."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from scenes.axes import UnitLaw
from scenes.errors import InputError
from trainer.adapters.conversion.restate import restate
from trainer.control.laws import AxisControl, LogLaw, StepLaw

step_laws = st.builds(StepLaw, neutral=st.floats(-50.0, 50.0), step=st.one_of(st.floats(-10.0, -0.1), st.floats(0.1, 10.0)))


@given(step_laws, st.floats(-3.0, 3.0))
def test_the_law_of_an_adapter_is_the_unit_law_and_survives_its_card(law: StepLaw, control: float) -> None:
    axis = AxisControl(name="any", law=law)
    assert AxisControl.model_validate_json(axis.model_dump_json()) == axis
    assert law.value(control) == UnitLaw(neutral=law.neutral, step=law.step).value(control)
    assert law.control(law.value(control)) == pytest.approx(control, abs=1e-7)


def test_the_card_of_a_law_with_a_ratio_is_what_it_was() -> None:
    axis = AxisControl(name="shutter", law=LogLaw(neutral=0.0125, ratio=5.0))
    assert axis.model_dump_json() == '{"name":"shutter","law":{"kind":"log","neutral":0.0125,"ratio":5.0}}'


@settings(max_examples=40, deadline=None)
@given(step_laws, step_laws, st.floats(-1.0, 1.0), st.integers(0, 1000))
def test_restated_weights_see_the_same_value(old: StepLaw, new: StepLaw, control: float, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn(6, 1, generator=random, dtype=torch.float64)
    bias = torch.randn(6, generator=random, dtype=torch.float64)
    before, after = AxisControl(name="any", law=old), AxisControl(name="any", law=new)
    made = restate({"embedding.lin1.weight": weight, "embedding.lin1.bias": bias}, [before], [after])
    seen = weight[:, 0] * old.control(new.value(control)) + bias
    assert torch.allclose(made["embedding.lin1.weight"][:, 0] * control + made["embedding.lin1.bias"], seen, atol=1e-6)


def test_a_step_is_no_straight_line_of_a_logarithm() -> None:
    tensors = {"embedding.lin1.weight": torch.ones(2, 1), "embedding.lin1.bias": torch.zeros(2)}
    old, new = AxisControl(name="any", law=StepLaw(neutral=0, step=2)), AxisControl(name="any", law=LogLaw(neutral=1, ratio=2))
    with pytest.raises(InputError, match=r"kind 'step'.*kind 'log'.*--preset keep"):
        restate(tensors, [old], [new])


@pytest.mark.parametrize(
    "law", [{"neutral": 0, "step": 0}, {"neutral": float("nan"), "step": 1}, {"neutral": 0, "step": 1e300}]
)
def test_nonsense_is_refused(law: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        StepLaw(**law)


def test_a_control_beyond_numbers_is_refused() -> None:
    with pytest.raises(InputError, match="which no camera has"):
        StepLaw(neutral=0, step=2).value(1e308)
