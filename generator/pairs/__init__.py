"""Pairs of a condition and a target: derived from a version of a dataset, or read from files that people already have.

Here: the kinds of pairs that a scene gives (`dataset_pairs`), and the layouts of other programs (`pair_files`).
Not here: writing pairs for other programs, which is `generator/export/pairs.py`; learning from them, which is the trainer's.
"""
