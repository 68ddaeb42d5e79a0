"""The method `transformer`: a whole transformer trains, with its text encoder if asked for.

`task.py`: batches and losses. Videos are made by the loop of `control`, without an adapter.
Not here: how the bundled backbone is made (`trainer/tiny/`).
"""
