"""A custom .blend: opened, checked, and annotated with what the closed forms need to know.

Not here: the annotations as plain data (`scenes/families/blend_annotation.py`), and which file a recipe names
(`generator/recipe/blend_file.py`).
"""
