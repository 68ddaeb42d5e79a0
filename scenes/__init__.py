"""What stands in front of the camera, and what the camera does: pure data and maths; only `scenes.blender` touches bpy."""

from scenes.axes import AXES, Axis, Mark, Measurement, Reading, UnitLaw
from scenes.families import FAMILIES, Family, draw_scene

__all__ = ["AXES", "FAMILIES", "Axis", "Family", "Mark", "Measurement", "Reading", "UnitLaw", "draw_scene"]
