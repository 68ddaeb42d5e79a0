"""From a recipe to a plan: what a person may write, how it is read and checked, and every clip that it implies.

Pure: the same recipe and seed give the same plan on any machine. Also what follows from a plan alone: its cost, and which
labels can be verified.
Not here: the scenes themselves (`scenes/families/`), and what is stored of a plan (`generator/store/stored_plans.py`).
"""
