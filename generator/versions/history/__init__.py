"""A dataset's history: versions by reference, the log, tags, and the locks that writers take.

Not here: what a version lists (`manifest/`), and making one (`generator/versions/commit.py`).
"""
