"""Cycles: loading Blender, its settings, render borders, and linear pixels out of it.

Together with `custom_blend/` beside it, the only place of the generator that imports bpy.
Not here: building a scene in Blender, which is `scenes/blender.py`.
"""
