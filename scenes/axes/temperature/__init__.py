"""The colour temperature axis: the cast of the light, read on what should be neutral.

`axis.py` is the axis, `probe.py` its blind probe.
Not here: white points and chromatic adaptation, which are in `scenes/white.py`.
"""
