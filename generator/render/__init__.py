"""Render processes: a pool of them, what they are told, and how a scene becomes clips.

Blender is loaded only in processes that the pool starts.
Not here: Blender's own calls (`engine/`), and scenes from a person's .blend (`custom_blend/`).
"""
