"""Keeps what libraries say of their own insides off a person's terminal."""

from __future__ import annotations

import logging
import sys
import warnings

# logger -> what it says that nobody at a terminal can act on
NOISY = {
    "torchao": "kernels that were built for other versions of Python or other GPUs",
    "torch.utils._pytree": "how torchao registers its enumerations",
    "bitsandbytes": "optional kernels that are not installed",
}


def quiet_libraries() -> None:
    """Let libraries speak of errors only, and draw no bars where nobody watches; this project's own words are not touched."""
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        if not sys.stderr.isatty():
            library.disable_progress_bar()
    for category in (FutureWarning, DeprecationWarning):  # for those who write code, not for those who run it
        warnings.filterwarnings("ignore", category=category)
    # Whole models train with float32 norms under autocast, on purpose.
    warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
