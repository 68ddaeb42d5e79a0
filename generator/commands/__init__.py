"""The generator's commands: one module each, with a function `command` whose docstring is its help.

Modules named `…_options` hold options and output that several commands share.
Not here: the work itself, which a command imports when it is called.
"""
