"""Files of any kind, written so that a crash leaves the old one or the new one.

Here: atomic writes, checksummed JSON, file locks, scratch folders, lookups that spill to the disk, errors of the disk in words.
Not here: what is in the files; clips and pictures are in `generator/media/`.
"""
