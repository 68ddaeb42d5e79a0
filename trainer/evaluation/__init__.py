"""Measures what generated videos show, with the probes that verified the data.

Here: arms, scores, accuracy, drift, the results file and the verdict.
Not here: reading videos with probes (`trainer/probing/`), several runs (`trainer/comparison/`), the page (`trainer/report/`).
"""
