"""Names of weights in other programs' files, as explicit tables, both ways; nothing is matched by a fragment of a name."""
