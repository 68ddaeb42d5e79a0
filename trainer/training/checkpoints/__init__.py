"""Checkpoints: written whole or not at all, when they are due, and which were best.

Not here: an adapter's folder (`trainer/adapters/folder.py`).
"""
