"""Weights load exactly: a missing or unexpected key or a wrong shape is an error that says which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from scenes.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

SHOWN = 3


class Shaped(Protocol):
    """A tensor, or what a file's header says of one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""
        ...


def check_exact(source: str, expected: Mapping[str, tuple[int, ...]], received: Mapping[str, Shaped]) -> None:
    """Raise InputError unless `received` has exactly the expected names, each with the expected shape."""
    missing = sorted(set(expected) - set(received))
    unexpected = sorted(set(received) - set(expected))
    reshaped = sorted(name for name in set(expected) & set(received) if tuple(received[name].shape) != expected[name])
    shapes = [f"{name} {list(received[name].shape)} instead of {list(expected[name])}" for name in reshaped]
    faults = [
        f"{len(items)} {what} ({_some(items)})"
        for what, items in (("missing", missing), ("unexpected", unexpected), ("of a wrong shape", shapes))
        if items
    ]
    if faults:
        raise InputError(f"{source} does not fit: {'; '.join(faults)}; use the backbone and settings that it was made with")


def rename(source: str, names: Mapping[str, str], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights under the names that a table gives them; raises InputError unless the table fits exactly."""
    missing, unexpected = sorted(set(names) - set(weights)), sorted(set(weights) - set(names))
    if missing or unexpected:
        faults = [f"{len(n)} {what} ({_some(n)})" for what, n in (("missing", missing), ("unexpected", unexpected)) if n]
        raise InputError(f"{source} does not fit: {'; '.join(faults)}")
    return {new: weights[old] for old, new in names.items()}


def printable(words: object, length: int = 200) -> str:
    """Return words out of a stranger's file as one short line: nothing in them moves the cursor or breaks the line."""
    plain = "".join(letter if letter.isprintable() else " " for letter in str(words)).strip()
    return plain if len(plain) <= length else f"{plain[: length - 1]}…"


def _some(items: Sequence[str]) -> str:
    return ", ".join(printable(item) for item in items[:SHOWN]) + (", …" if len(items) > SHOWN else "")
