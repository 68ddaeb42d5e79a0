"""From a dataset's version to a control adapter, and from an adapter to videos, readings and a report.

Here: only `trainer.pipeline`, the door for users of an adapter in Python.
Not here: axes and probes (`scenes/`), rendering and versions (`generator/`).
"""

__distribution__ = "stopdown"  # the command refuses packages of other programs
