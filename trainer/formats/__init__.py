"""Keys of other programs' weight files, as explicit tables, both ways; nothing is matched by a fragment of a name.

Not here: whole adapters from and to these formats (`trainer/adapters/conversion/`).
"""
