"""Clone, push and pull: which objects and references one copy of a history lacks, sent in an order that no kill can harm.

Not here: the storage (`generator/remotes/`), and copying on one machine (`history/transfer.py`).
"""
