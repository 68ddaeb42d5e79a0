"""Processes of this program: how they are started, and how many processors they may use.

Not here: render processes, which are a pool of their own (`generator/render/pool.py`).
"""
