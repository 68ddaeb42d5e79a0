"""The working folder: the clips that a person sees, compared with their version, restored, and changed by hand.

Not here: making a version of it (`generator/versions/commit_folder.py`), and rendering (`generator/building/`).
"""
