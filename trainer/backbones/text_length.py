"""How long a text is in tokens, and what a cut to a number of them loses: captions that are cut, and texts that become one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from diffusers.pipelines.wan.pipeline_wan import prompt_clean

WAN_TOKENS = 512  # what Wan was trained with
SHOWN = 3


def token_ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Return a text's tokens as Wan's pipeline makes them, with the last one that ends it, uncut."""
    return tuple(tokenizer(prompt_clean(text), add_special_tokens=True, truncation=False, verbose=False).input_ids)


def length_notes(tokenizer: Any, texts: Mapping[str, str], length: int, remedy: str) -> tuple[str, ...]:
    """Return lines that name what is cut to `length` tokens, and different texts that are alike for that many.

    `texts` are by what names them to a person, such as a clip's id; texts that stand several times are counted once.
    """
    named: dict[str, str] = {}
    for name, text in texts.items():
        named.setdefault(text, name)
    tokens = {text: token_ids(tokenizer, text) for text in named}
    cut = {text: ids for text, ids in tokens.items() if len(ids) > length}
    notes = []
    if cut:
        longest = sorted(cut, key=lambda text: -len(cut[text]))
        words = _listed(f"{named[text]} ({len(cut[text])} tokens)" for text in longest)
        notes.append(f"{len(cut)} of {len(named)} texts are longer than {length} tokens and are cut: {words}; {remedy}")
    seen: dict[tuple[int, ...], str] = {}
    alike: list[str] = []
    for text in cut:
        first = seen.setdefault(cut[text][: length - 1], text)  # the last token kept is the one that ends a text
        if first != text:
            alike.append(f"{named[first]} and {named[text]}")
    if alike:
        notes.append(f"the same to the model, for they are alike for {length} tokens: {_listed(alike)}; {remedy}")
    return tuple(notes)


def _listed(words: Iterable[str]) -> str:
    found: Sequence[str] = list(words)
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + more
