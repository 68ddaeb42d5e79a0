"""Storage for a dataset's history elsewhere: a folder, or a bucket that speaks S3.

Here: the contract (`base`), one module for each kind, trying again, and proving that a file lies there as it was written.
Not here: which objects are sent and fetched (`generator/versions/sync/`).
"""
