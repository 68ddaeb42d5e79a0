"""Lineage: what a dataset says of itself, generated from its plan, labels and records. Nothing here renders or decides."""
