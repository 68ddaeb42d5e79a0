"""What a dataset says of itself: its card, its Croissant metadata, its provenance, made from plan, labels and records.

Nothing here renders or decides.
Not here: pages to look at (`generator/web/`), and the report of a check (`generator/verify/`).
"""
