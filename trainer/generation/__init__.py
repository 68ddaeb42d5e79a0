"""From values, prompts and an adapter to videos, their records and a labelled grid.

Not here: the pipeline itself (`trainer/pipelines/`), and judging the videos (`trainer/evaluation/`).
"""
