"""Versions of a dataset: immutable snapshots with parents, tags, diffs, restore and garbage collection.

Where to look: `rows` (what a version says of a clip), `manifest` (the tree of leaves), `version` (the record of one version),
`refs` (head, tags, REF grammar), `history` (opening, log, tags), `commit`, `diff`, `working` and `restore` (the folder),
`gc`, `check` (every byte), `merge`, `splits`, `snapshot` (reading), `query`.
"""
