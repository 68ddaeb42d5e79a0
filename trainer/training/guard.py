"""Stops a run that goes wrong while its weights are still good, and puts failures of memory into words."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch

from trainer.errors import DivergedError, OutOfRoomError

WINDOW = 100  # losses that the running median is taken over
ENOUGH = 20  # losses before a median means anything
SHOWN = 8
MEMORY_WORDS = ("can't allocate memory", "not enough memory", "out of memory")


class Guard:
    """Remembers the last losses and judges the next one."""

    def __init__(self, max_loss_factor: float, losses: Iterable[float] = ()) -> None:
        self.max_loss_factor = max_loss_factor
        self.losses = deque(losses, maxlen=WINDOW)

    def fault(self, loss: float, gradient_norm: float) -> str | None:
        """Return what is wrong with a step's mean loss and gradient, or None."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(gradient_norm):
            return f"the gradient's norm is {gradient_norm} at loss {loss:.4g}"
        if self.max_loss_factor and len(self.losses) >= ENOUGH:
            median = statistics.median(self.losses)
            if loss > self.max_loss_factor * median:
                return f"the loss is {loss:.4g}, above {self.max_loss_factor:g} times its running median {median:.4g}"
        return None

    def passed(self, loss: float) -> None:
        """Remember the loss of a step that was made."""
        self.losses.append(loss)


def diverged(step: int, fault: str, clip_losses: Mapping[str, float], checkpoint: str | None) -> DivergedError:
    """Return the error for a step with a fault, naming the batch's clips, the worst first."""
    worst = sorted(clip_losses, key=lambda clip: (math.isfinite(clip_losses[clip]), -clip_losses[clip], clip))
    named = ", ".join(f"{clip} ({clip_losses[clip]:.4g})" for clip in worst[:SHOWN])
    more = f" and {len(worst) - SHOWN} more" if len(worst) > SHOWN else ""
    kept = f"the last checkpoint is {checkpoint}" if checkpoint else "there is no checkpoint yet"
    return DivergedError(
        f"step {step}: {fault}; clips and their losses: {named}{more}; no weight was changed and {kept}; "
        "look at these clips, or lower optimizer.learning_rate"
    )


@contextmanager
def memory_in_words(advice: str) -> Iterator[None]:
    """Turn a failed allocation, on a GPU or in main memory, into one line that ends with what to lower.

    What it wraps raises OutOfRoomError.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfRoomError(f"the GPU's memory is full ({_first(error)}); {advice}") from error
    except MemoryError as error:
        raise OutOfRoomError(f"main memory is full; {advice}") from error
    except RuntimeError as error:
        if not any(words in str(error) for words in MEMORY_WORDS):
            raise
        raise OutOfRoomError(f"memory is full ({_first(error)}); {advice}") from error


def _first(error: BaseException) -> str:
    words = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return words if len(words) <= 160 else words[:157] + "..."
