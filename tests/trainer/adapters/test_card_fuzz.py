"""No `control.json` gives a traceback, whatever stands in it: it is refused in one line, or what it says is used.

The checksum is made anew for half of the cards, as a hostile author would; STOPDOWN_FUZZ draws so many times as many.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from fuzz_support import mangled, odd_trees
from hypothesis import given, settings
from hypothesis import strategies as st
from trainer_support import adapted, tiny_transformer

from generator.io.checksummed_json import canonical, sha256
from scenes.errors import StopdownError
from trainer.adapters.card import CARD, CHECK, AdapterCard, card_bytes
from trainer.adapters.folder import attach_saved, save_adapter
from trainer.adapters.saved import SavedAdapter

TIMES = int(os.environ.get("STOPDOWN_FUZZ", "1"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a saved adapter, whose card the tests write anew."""
    folder = tmp_path_factory.mktemp("fuzz") / "adapter"
    save_adapter(folder, {"transformer": adapted()}, backbone_id="tiny", step=12, recipe={"backbone": {"text_max_length": 64}})
    return folder


@pytest.fixture(scope="module")
def card(folder: Path) -> dict[str, Any]:
    """Return what the card says, without its checksum."""
    tree: dict[str, Any] = json.loads((folder / CARD).read_bytes())
    del tree[CHECK]
    return tree


def used_or_refused(folder: Path, data: bytes) -> bool:
    """Open and attach an adapter with these bytes as its card; return whether it was used. A refusal is one line."""
    (folder / CARD).write_bytes(data)
    try:
        attach_saved({"transformer": tiny_transformer()}, SavedAdapter.open(folder))
    except StopdownError as error:
        words = str(error)
        assert words.isprintable() and len(words) < 2000, words
        return False
    return True


def test_odd_cards_are_refused_in_one_line(folder: Path, card: dict[str, Any]) -> None:
    """Entries that are others than the schema foresees."""

    @settings(max_examples=300 * TIMES)
    @given(odd_trees(card), st.booleans())
    def run(tree: Any, checksummed: bool) -> None:
        with contextlib.suppress(ValueError):  # NaN and half a surrogate pair have no checksum
            tree[CHECK] = sha256(canonical(tree)) if checksummed else "0" * 64
        data = json.dumps(tree, indent=2, ensure_ascii=False).encode("utf-8", "surrogatepass")
        used_or_refused(folder, data + b"\n")

    run()


def test_mangled_cards_are_refused_in_one_line(folder: Path, card: dict[str, Any]) -> None:
    """Text that was cut and joined at random places."""
    whole = json.dumps(card, indent=2, ensure_ascii=False)

    @settings(max_examples=150 * TIMES)
    @given(mangled(whole))
    def run(text: str) -> None:
        used_or_refused(folder, text.encode("utf-8", "surrogatepass"))

    run()


def test_the_card_as_it_was_is_used(folder: Path, card: dict[str, Any]) -> None:
    """The draws above start from a card that is right."""
    assert used_or_refused(folder, card_bytes(AdapterCard.model_validate(card)))
