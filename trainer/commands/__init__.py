"""One module per command of the trainer, each with a function `command`; nothing heavy is imported before it is called.

Modules named `…_options` hold a command's options; `plan_table` prints what a run would do.
Not here: the work itself.
"""
