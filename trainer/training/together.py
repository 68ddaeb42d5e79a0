"""What one of several processes fails at ends all of them, with the same error; else the others would wait for it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from scenes.errors import StopdownError

Made = TypeVar("Made")
WAIT = "wait"


def first_does(accelerator: Accelerator, work: Callable[[Callable[[], None]], None]) -> None:
    """Let the first process do what the others wait for; all processes must call it, and all raise what it raises.

    `work` is given a function to call now and then while it takes long: the others then go on waiting, without a limit.
    """
    several = accelerator.num_processes > 1

    def tell(word: BaseException | str | None) -> BaseException | str | None:
        said = [word]
        if several:
            broadcast_object_list(said)
        return said[0]

    def still() -> None:
        tell(WAIT)

    if accelerator.is_main_process:
        try:
            work(still)
        except BaseException as error:
            tell(_sendable(error))
            raise
        tell(None)
        return
    while (heard := tell(None)) == WAIT:
        pass
    if isinstance(heard, BaseException):
        raise heard


def all_do(accelerator: Accelerator, work: Callable[[], Made]) -> Made:
    """Return what each process makes of its own part; where one fails, all raise: their own error, or the first one's."""
    if accelerator.num_processes == 1:
        return work()
    made, mine = None, None
    try:
        made = work()
    except Exception as error:
        mine = error
    failures = [error for error in gather_object([None if mine is None else _sendable(mine)]) if error is not None]
    if mine is not None:
        raise mine
    if failures:
        raise failures[0]
    return made  # type: ignore[return-value]  # what `work` returned


def _sendable(error: BaseException) -> BaseException:
    """Return an error that another process can raise: itself, or its words."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return StopdownError(f"another process failed: {type(error).__name__}: {error}")
    return error
