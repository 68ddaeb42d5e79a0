"""What an export's folder consists of: entries (one file or folder each), the marker that lists them, texts and tables.

Nothing here knows a format or a dataset.
Not here: putting entries on the disk (`generator/export/write_folder.py`).
"""
