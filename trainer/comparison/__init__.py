"""Runs against each other: a recipe at several fidelities, seeds and methods, and the claims that the numbers bear out.

Not here: one run (`trainer/runs/`), one evaluation (`trainer/evaluation/`).
"""
