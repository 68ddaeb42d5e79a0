"""Versions of a dataset: what makes, joins, checks and removes them.

Below: `history/` (versions and their names), `manifest/` (what a version lists), `reading/` (`Dataset`, queries, differences),
`working/` (the folder that a person sees), `sync/` (clone, push, pull).
Not here: objects and labels (`generator/store/`), storage elsewhere (`generator/remotes/`).
"""
