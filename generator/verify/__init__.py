"""Proving a dataset: every file's hash, every label's law, and every probe again on the decoded frames.

Here: the check, its findings as plain data, and how they are printed and drawn.
Not here: the probes (`scenes/axes/`), and checking the history's objects (`generator/versions/check.py`).
"""
