"""A training run: its setup from settings, the loop, and its end.

Below: `tasks/` (what tasks are made of), `callbacks/` (what watches), `checkpoints/`.
Not here: settings (`trainer/config/train.py`), clips and encodings (`trainer/data/`).
"""
