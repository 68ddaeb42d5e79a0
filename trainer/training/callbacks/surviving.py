"""What only looks at a run must not end it: a validation, preview or tracker that fails is logged, and training goes on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from trainer.backbones.memory import empty_cache

LOG = logging.getLogger("stopdown.training")


@contextmanager
def surviving(what: str) -> Iterator[None]:
    """Log a failure in one line, its traceback for those who log at DEBUG, and go on; Ctrl-C and exits pass."""
    try:
        yield
    except Exception as error:
        words = str(error).strip().splitlines()
        LOG.warning("%s failed (%s: %s); training goes on", what, type(error).__name__, words[0] if words else "no words")
        LOG.debug("%s failed", what, exc_info=True)
        del error
        empty_cache()  # what a preview that ran out of memory held
