"""The generator's commands: one module each, with a function `command` whose docstring is its help."""
