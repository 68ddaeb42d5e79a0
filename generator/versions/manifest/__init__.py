"""What a version lists: its rows, in a tree of leaves that shares what has not changed with other versions.

Not here: the labels of a clip (`generator/store/labels.py`), and the version's own record (`history/version.py`).
"""
