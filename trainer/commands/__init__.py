"""One module per command of the trainer, each with a function `command`; nothing heavy is imported before it is called."""
