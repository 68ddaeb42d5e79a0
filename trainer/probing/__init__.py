"""Generated videos read by the blind probes: one, a sweep, a sweep remembered; and the statistics of readings.

Not here: the probes (`scenes/axes/`), and scores of an evaluation (`trainer/evaluation/`).
"""
