"""The control axes. A new axis is one folder here and one line of `AXES`.

Here: the registry, and the round values that a scale of an axis shows (`ticks`). Each axis has a folder: `axis.py` says what it
is and how it acts on the camera, `probe.py` reads it from pixels alone.
Not here: the contract of an axis and its unit law, which is `scenes/control_axis.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from scenes.axes.aperture.axis import Aperture
from scenes.axes.shutter.axis import Shutter
from scenes.axes.temperature.axis import Temperature
from scenes.control_axis import Axis, Detection, Measurement, Reading, UnitLaw, Unread

AXES: Mapping[str, Axis] = MappingProxyType(
    {
        "shutter": Shutter(),
        "aperture": Aperture(),
        "temperature": Temperature(),
    }
)

__all__ = ["AXES", "Axis", "Detection", "Measurement", "Reading", "UnitLaw", "Unread"]
