"""What lies in a dataset's `.stopdown/` and in its label table: objects by hash, records of clips, labels, splits, plans.

Not here: versions of all that (`generator/versions/`), and files as such (`generator/io/`).
"""
