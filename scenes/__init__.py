"""What stands in front of the camera, and what the camera does: pure data and maths; only `scenes.blender` touches bpy."""

__distribution__ = "stopdown"  # the command refuses packages of other programs
