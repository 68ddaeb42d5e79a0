"""What a control of an adapter means in physical units: the axis's name and the law that its training data obeyed."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from scenes.axes import AXES, Axis, UnitLaw
from scenes.errors import InputError, closest
from trainer.control.numbers import is_number

FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
Neutral = Annotated[float, Field(ge=1e-12, le=1e12)]
Ratio = Annotated[float, Field(ge=1e-9, le=1e9)]
LEAST_RATIO = 1e-6  # |log ratio|: nearer 1, a control means nothing


class LogLaw(BaseModel):
    """The law of DESIGN section 2: `value(c) = neutral * ratio ** c`."""

    model_config = FROZEN

    kind: Literal["log"] = "log"
    neutral: Neutral
    ratio: Ratio

    @model_validator(mode="after")
    def _check(self) -> LogLaw:
        if abs(math.log(self.ratio)) < LEAST_RATIO:
            raise ValueError(f"ratio {self.ratio:g} means the same value at every control; give one other than 1")
        return self

    def value(self, control: float) -> float:
        """Return the physical value at a control; raises InputError where it is beyond what numbers hold."""
        try:
            value = UnitLaw(neutral=self.neutral, ratio=self.ratio).value(control)
        except OverflowError:
            value = math.inf
        if not 0 < value < math.inf:
            raise InputError(f"control {control:g} means {value:g}, which no camera has; choose one nearer 0")
        return value

    def control(self, value: float) -> float:
        """Return the control at a physical value."""
        return UnitLaw(neutral=self.neutral, ratio=self.ratio).control(value)


class StepLaw(BaseModel):
    """The additive law of an axis whose unit is a logarithm already: `value(c) = neutral + step * c`."""

    model_config = FROZEN

    kind: Literal["step"] = "step"
    neutral: Annotated[float, Field(ge=-1e12, le=1e12)]
    step: Annotated[float, Field(ge=-1e9, le=1e9)]

    @model_validator(mode="after")
    def _check(self) -> StepLaw:
        if abs(self.step) < LEAST_RATIO:
            raise ValueError(f"step {self.step:g} means the same value at every control; give one other than 0")
        return self

    def value(self, control: float) -> float:
        """Return the physical value at a control; raises InputError where it is beyond what numbers hold."""
        value = UnitLaw(neutral=self.neutral, step=self.step).value(control)
        if not math.isfinite(value):
            raise InputError(f"control {control:g} means {value:g}, which no camera has; choose one nearer 0")
        return value

    def control(self, value: float) -> float:
        """Return the control at a physical value."""
        return UnitLaw(neutral=self.neutral, step=self.step).control(value)


class MiredLaw(BaseModel):
    """Mired linear in the control, as the published temperature checkpoints have it: mired(c) = neutral + slope * c."""

    model_config = FROZEN

    kind: Literal["mired"] = "mired"
    neutral_mired: Neutral
    mired_per_control: FiniteFloat

    @model_validator(mode="after")
    def _check(self) -> MiredLaw:
        if abs(self.mired_per_control) < LEAST_RATIO:
            raise ValueError(f"mired_per_control {self.mired_per_control:g} means the same white at every control")
        return self

    def value(self, control: float) -> float:
        """Return kelvins at a control; raises InputError where the law leaves positive mired."""
        mired = self.neutral_mired + self.mired_per_control * control
        if mired <= 0:
            raise InputError(f"control {control:g} means {mired:g} mired, which no light has; choose one nearer 0")
        return 1e6 / mired

    def control(self, value: float) -> float:
        """Return the control at a temperature in kelvins."""
        return (1e6 / value - self.neutral_mired) / self.mired_per_control


class NoLaw(BaseModel):
    """A control without units: the checkpoint does not say what its scalar means."""

    model_config = FROZEN

    kind: Literal["none"] = "none"

    def value(self, control: float) -> float:
        """Raise InputError: there is no physical value."""
        raise InputError(f"control {control:g} has no physical value: this checkpoint states no unit law for its axis")

    def control(self, value: float) -> float:
        """Raise InputError: a physical value has no control."""
        raise InputError(f"{value:g} cannot become a control: this checkpoint states no unit law for its axis; give --control")


Law = Annotated[LogLaw | StepLaw | MiredLaw | NoLaw, Field(discriminator="kind")]


class AxisControl(BaseModel):
    """One axis of an adapter: its name in `scenes.AXES` and the unit law that it was trained under."""

    model_config = FROZEN

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    law: Law

    @property
    def axis(self) -> Axis:
        """The axis of this name; raises InputError if this installation has none."""
        if self.name not in AXES:
            raise InputError(
                f"axis '{self.name}' is unknown{closest(self.name, AXES)}; this installation has {', '.join(AXES)}"
            )
        return AXES[self.name]

    def control(self, written: str | float) -> float:
        """Return the control of a value as people write it (`1/50`, `f/2`, `3200K`) or as a number in the axis's unit.

        Raises InputError for what the axis cannot parse, and for a law that has no units.
        """
        if not isinstance(written, str) and not is_number(written):
            raise InputError(
                f"{self.name} {written!r} is no value; give a number in its unit, or text such as {self.format(0.0)}"
            )
        value = self.axis.parse(written) if isinstance(written, str) else float(written)
        signed = isinstance(self.law, StepLaw)
        if not (math.isfinite(value) and (signed or value > 0)):
            above = "" if signed else " above 0"
            raise InputError(f"{self.name} {value:g} is not a physical value; give a finite number{above}, or units")
        return self.law.control(value)

    def format(self, control: float) -> str:
        """Write a control in units, or as `c = 0.7` where the law has none."""
        if isinstance(self.law, NoLaw):
            return f"c = {control:g}"
        return self.axis.format(self.law.value(control))


def axis_control(name: str, law: UnitLaw | None = None) -> AxisControl:
    """Return the control of an axis of `scenes.AXES` under a unit law, its default one if none is given.

    Raises InputError for an unknown axis.
    """
    if name not in AXES:
        raise InputError(f"axis '{name}' is unknown{closest(name, AXES)}; allowed are {', '.join(AXES)}")
    used = law if law is not None else AXES[name].default_law
    if used.additive:
        return AxisControl(name=name, law=StepLaw(neutral=used.neutral, step=used.step))
    return AxisControl(name=name, law=LogLaw(neutral=used.neutral, ratio=used.ratio))
