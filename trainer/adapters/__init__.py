"""Saved adapters: the folder, its card, where one lies, and what is checked before it is loaded.

Not here: the control method's layers (`trainer/control/`), and other programs' files (`trainer/formats/`, `conversion/`).
"""
