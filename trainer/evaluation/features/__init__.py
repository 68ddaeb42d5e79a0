"""Features of videos and the distances between sets of them (SSF, SS-FD, DVS), and the fast evaluation on them (FEP).

Not here: what is concluded from them (`trainer/evaluation/`).
"""
