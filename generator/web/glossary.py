"""The words of a page that a reader may not know, each explained once, where it first stands."""

from __future__ import annotations

import re
from collections.abc import Mapping

WORDS: Mapping[str, str] = {
    "mired": "a million over the kelvins; equal steps of it look like equal steps of warmth",
    "stop": "a doubling or halving, of exposure time or of the width of the aperture",
    "bar": "the largest error, or the least rank correlation, that still passes",
    "judged": "how many clips were measured, of those that show enough of the effect",
    "rank": "rank correlation of label and reading within a scene: 1 where all are in order",
}


class Glossary:
    """Remembers what a page has explained."""

    def __init__(self, words: Mapping[str, str] = WORDS) -> None:
        self.words = words
        self._told: set[str] = set()

    def first(self, *texts: object) -> tuple[tuple[str, str], ...]:
        """Return the words, with their meaning, that stand in some texts and in none before them, in the texts' order."""
        read = " ".join(str(text) for text in texts)
        places = {word: found.start() for word in self.words if (found := re.search(_pattern(word), read)) is not None}
        fresh = [word for word in sorted(places, key=places.__getitem__) if word not in self._told]
        self._told.update(fresh)
        return tuple((word, self.words[word]) for word in fresh)


def _pattern(word: str) -> str:
    """Return what finds a word, also in the plural, and not within another."""
    return rf"(?<![\w-]){re.escape(word)}s?(?![\w-])"
