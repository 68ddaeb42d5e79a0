"""`stopdown run`: from a recipe to verified control, as named stages that remember what they did.

Here: the stages (`run_stages`), which are skipped (`stage_runner`), the run's folder, what it will take, watching it.
Not here: several runs against each other (`trainer/comparison/`), one training (`trainer/training/`).
"""
