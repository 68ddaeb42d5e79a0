"""Clips and pictures: arrays to bytes and back, and reading a clip with an axis's probe.

Not here: rendering them (`generator/render/`), and the probes themselves (`scenes/axes/`).
"""
