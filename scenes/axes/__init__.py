"""The control axes. A new axis is one module here and one line of `AXES`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from scenes.axes.aperture import Aperture
from scenes.axes.base import Axis, Mark, Measurement, Reading, UnitLaw
from scenes.axes.shutter import Shutter
from scenes.axes.temperature import Temperature

AXES: Mapping[str, Axis] = MappingProxyType(
    {
        "shutter": Shutter(),
        "aperture": Aperture(),
        "temperature": Temperature(),
    }
)

__all__ = ["AXES", "Axis", "Mark", "Measurement", "Reading", "UnitLaw"]
