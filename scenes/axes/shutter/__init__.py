"""The shutter axis: exposure time, read by dividing the length of the motion blur by the speed.

`axis.py` is the axis, `probe.py` its blind probe, the rest what the probe is made of.
Not here: how a scene moves, which is `scenes/motion.py`.
"""
