"""What stands in front of the camera, and what the camera does: pure data and maths; only `scenes.blender` touches bpy.

Here: the spec of a scene, its shapes, colours and motion, the camera's closed forms, what a control axis is (`control_axis`).
The axes themselves are in `axes/`, the kinds of scene in `families/`.
Not here: reading recipes, rendering and files (`generator/`); anything with torch (`trainer/`).
"""

__distribution__ = "stopdown"  # the command refuses packages of other programs
