"""Tries to reach a Ray cluster, in a process of its own that can be stopped: `python -P reach.py ADDRESS SECONDS`.

Ray waits a minute and more for an address that does not answer, and may end the process that asked (seen on Ray 2.60).
Prints one JSON object: `trouble` is null, or one line. After so many seconds, those to load Ray not counted, SIGALRM ends it.
Imports nothing of Stopdown, so it runs as a file.
"""

from __future__ import annotations

import json
import logging
import signal
import sys


def main(address: str, answer_s: float) -> None:
    """Connect, say what came of it, and leave."""
    import ray

    signal.setitimer(signal.ITIMER_REAL, answer_s)  # unlike any Python code, the signal comes through while Ray waits
    trouble = None
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
        ray.shutdown()
    except Exception as error:  # Ray raises half a dozen kinds, and all of them mean the same to a person
        trouble = " ".join(str(error).split()) or type(error).__name__
    sys.stdout.write(json.dumps({"trouble": trouble}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
