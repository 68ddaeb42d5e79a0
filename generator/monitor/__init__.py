"""Looking at a build in progress: what is read becomes a board; a board is drawn as text, as a live view or as a page.

Not here: runs and trainings in progress, which `trainer/runs/watch_run.py` puts on the same board; what workers tell
(`generator/building/heartbeat.py`).
"""
