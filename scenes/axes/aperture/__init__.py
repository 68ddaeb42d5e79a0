"""The aperture axis: f-number, read from the discs that points out of focus become.

`axis.py` is the axis, `probe.py` its blind probe, the rest what the probe is made of.
Not here: the thin lens, which is in `scenes/camera.py`.
"""
