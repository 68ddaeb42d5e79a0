"""Adapters from and to other programs' formats, and other meanings of their scalar.

Not here: the formats' own keys (`trainer/formats/`).
"""
