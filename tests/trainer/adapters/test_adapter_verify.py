"""A damaged or hostile adapter is refused in one line, before anything is allocated for it; one without hashes still loads."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from trainer_support import adapted, tiny_transformer

from generator.io.checksummed_json import canonical, sha256
from scenes.errors import InputError
from trainer.adapters.adapter_weights import CONTROL_FILE, LORA_FILE
from trainer.adapters.card import CARD, card_bytes
from trainer.adapters.conversion.describe import describe
from trainer.adapters.conversion.sources import read_source
from trainer.adapters.folder import attach_saved, save_adapter
from trainer.adapters.saved import SavedAdapter
from trainer.control import WanAdapter


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved adapter; do not change it."""
    folder = tmp_path_factory.mktemp("adapters") / "original"
    recipe = {"backbone": {"text_max_length": 64}, "optimizer": {"learning_rate": 2e-5}}
    save_adapter(folder, {"transformer": adapted()}, backbone_id="tiny", step=12, dataset_version="a" * 64, recipe=recipe)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of the adapter, to be damaged."""
    return Path(shutil.copytree(original, tmp_path / "adapter"))


def rewrite_card(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a card as a hostile author would, who leaves the hashes out: format 1."""
    tree = json.loads((folder / CARD).read_text())
    del tree["check"], tree["weights"]
    tree["format"] = 1
    change(tree)
    (folder / CARD).write_text(json.dumps(tree))


def attached(folder: Path) -> dict[str, WanAdapter]:
    """Put a saved adapter on a fresh transformer."""
    return attach_saved({"transformer": tiny_transformer()}, SavedAdapter.open(folder))


def rewritten(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a card and make its checksum anew."""
    tree = json.loads((folder / CARD).read_text())
    del tree["check"]
    change(tree)
    tree["check"] = sha256(canonical(tree))
    (folder / CARD).write_text(json.dumps(tree, indent=2) + "\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: tree["weights"].pop(LORA_FILE), "its card lists control_adapter.safetensors, an adapter like it has"),
        (lambda tree: tree["weights"].update({"../../etc/passwd": "a" * 64}), "its card lists ../../etc/passwd"),
        (lambda tree: tree["weights"].update({LORA_FILE: "b" * 64}), f"{LORA_FILE} does not match its sha256"),
        (lambda tree: tree.pop("weights"), "format 2 lists every weight file"),
        (lambda tree: tree.update({"format": 1}), "format 1 none"),
    ],
)
def test_hashes_that_do_not_belong(folder: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    rewritten(folder, lambda tree: tree)
    SavedAdapter.open(folder)
    rewritten(folder, change)
    refused(folder, message)


def without_hashes(folder: Path) -> None:
    """Make it an adapter of before there were hashes."""
    rewrite_card(folder, lambda tree: None)


def refused(folder: Path, match: str) -> None:
    """Check that every reader refuses a folder in one line."""
    for reader in (
        SavedAdapter.open,
        read_source,
        attached,
    ):
        with pytest.raises(InputError, match=match) as caught:
            reader(folder)
        assert str(caught.value).isprintable()


def test_a_flipped_bit_anywhere_is_found(original: Path, folder: Path) -> None:
    drawn = random.Random(4)
    for name in (CARD, CONTROL_FILE, LORA_FILE):
        whole = (original / name).read_bytes()
        for _ in range(60):
            place, bit = drawn.randrange(len(whole)), drawn.randrange(8)
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            (folder / name).write_bytes(damaged)
            with pytest.raises(InputError) as caught:
                SavedAdapter.open(folder)
            assert str(caught.value).isprintable(), (name, place, bit)
        for short in (0, 7, len(whole) // 2, len(whole) - 1):
            (folder / name).write_bytes(whole[:short])
            refused(folder, CARD if name == CARD else name)
        (folder / name).write_bytes(whole)
    SavedAdapter.open(folder)


def test_other_weights_are_found(folder: Path) -> None:
    weights = {name: 2 * tensor for name, tensor in load_file(folder / LORA_FILE).items()}
    save_file(weights, folder / LORA_FILE)
    refused(folder, "does not match its sha256")


def test_an_adapter_without_hashes_loads_and_says_so(original: Path, folder: Path) -> None:
    assert describe(original)["hashes"] == "2 weight files, verified"
    without_hashes(folder)
    assert describe(folder)["hashes"] == "no hashes, not verified"
    saved = SavedAdapter.open(folder)
    card, adapters = saved.card, attach_saved({"transformer": tiny_transformer()}, saved)
    assert card.weights is None and card.format == 1 and json.loads(card_bytes(card))["format"] == 1
    expected = load_file(original / CONTROL_FILE)
    assert all(torch.equal(own, expected[name]) for name, own in adapters["transformer"].control_parameters().items())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", [CONTROL_FILE, LORA_FILE])
def test_weights_are_finite(folder: Path, name: str, value: float) -> None:
    without_hashes(folder)
    weights = load_file(folder / name)
    victim = next(iter(weights))
    weights[victim].view(-1)[1] = value
    save_file(weights, folder / name)
    for reader in (read_source, attached):
        with pytest.raises(InputError, match=rf"1 of [\d,]+ values of {victim} are not finite"):
            reader(folder)


def test_weights_that_a_number_format_cannot_hold_are_refused(folder: Path) -> None:
    without_hashes(folder)
    weights = load_file(folder / LORA_FILE)
    next(iter(weights.values())).view(-1)[0] = 1e6
    save_file(weights, folder / LORA_FILE)
    with pytest.raises(InputError, match=r"as torch.float16: 1 of .* not finite"):
        half, opened = {"transformer": tiny_transformer().half()}, SavedAdapter.open(folder)
        attach_saved(half, opened, allow_other_backbone=True, dtype=torch.float16)


NONSENSE: list[tuple[str, Any, str]] = [
    ("config.lora.rank", 10**7, "config.lora.rank: .* 4096, received 10000000"),
    ("config.control.rank", 4097, "config.control.rank"),
    ("config.control.rank", 4, "of a wrong shape"),
    ("config.lora.rank", 7, "of a wrong shape"),
    ("config.control.tokens", 10**12, "config.control.tokens"),
    ("config.control.tokens", 5, "of a wrong shape"),
    ("config.control.embed_dim", 2**31, "config.control.embed_dim"),
    ("config.control.hidden_dim", 0, "config.control.hidden_dim"),
    ("config.control.alpha", 1e300, "config.control.alpha"),
    ("config.control.alpha", float("inf"), "config.control.alpha"),
    ("config.control.gate_value", float("nan"), "config.control.gate_value"),
    ("config.control.blocks", [], "blocks must be ascending"),
    ("config.control.blocks", [2, 10**9], "blocks must be ascending"),
    ("config.control.blocks", list(range(5000)), "config.control.blocks"),
    ("config.control.blocks", [1, 2], "missing"),
    ("config.control.axes", [], "axes must be one or more"),
    ("config.control.axes.0.name", "\x1b[2J", "config.control.axes.0.name"),
    ("config.control.axes.0.law.ratio", 1, "the same value at every control"),
    ("config.control.axes.0.law.ratio", 0, "law.*ratio"),
    ("config.control.axes.0.law.ratio", -5, "law.*ratio"),
    ("config.control.axes.0.law.ratio", 1e308, "law.*ratio"),
    ("config.control.axes.0.law.neutral", float("nan"), "law.*neutral"),
    ("config.control.axes.0.law", {"kind": "mired", "neutral_mired": 275, "mired_per_control": 0}, "the same white"),
    ("backbone.fingerprints", {}, "backbone.fingerprints"),
    ("backbone.fingerprints", {"transformer": ""}, "backbone.fingerprints"),
    ("backbone.fingerprints", {"../../etc": "a" * 64}, "backbone.fingerprints"),
    ("backbone.id", "two\nlines", "backbone.id: must be one line"),
    ("recipe.backbone.text_max_length", 10**9, "text_max_length must be 1 to 4096, received 1000000000"),
    ("recipe.backbone.text_max_length", -1, "text_max_length"),
    ("recipe.backbone.text_max_length", True, "text_max_length"),
    ("recipe.backbone.text_max_length", 64.5, "text_max_length"),
    ("step", 10**30, "step"),
    ("versions", {"torch": "\x1b[31m"}, "versions"),
    ("surprise\x1b[2J", 1, "surprise"),
]


@pytest.mark.parametrize(("key", "value", "message"), NONSENSE)
def test_nonsense_in_a_card_is_refused_before_anything_is_allocated(folder: Path, key: str, value: Any, message: str) -> None:
    def change(tree: Any) -> None:
        *path, last = key.split(".")
        for part in path:
            tree = tree[int(part) if part.isdigit() else part]
        tree[last] = value

    rewrite_card(folder, change)
    refused(folder, message)


def test_cards_that_are_no_cards(folder: Path) -> None:
    for data in (
        b"",
        b"[]",
        b"1",
        b"null",
        b"[" * 100_000,
        b'{"step": ' + b"9" * 5000 + b"}",
        b"\xff\xfe",
        b'{"a": "\\ud800"}',
    ):
        (folder / CARD).write_bytes(data)
        refused(folder, CARD)
    (folder / CARD).unlink()
    (folder / CARD).symlink_to("/dev/zero")
    refused(folder, "no card of an adapter")
    (folder / CARD).unlink()
    os.mkfifo(folder / CARD)
    refused(folder, "no card of an adapter")
    (folder / CARD).unlink()
    (folder / CARD).symlink_to(CARD)  # a loop
    refused(folder, CARD)


def header(tree: Any, data: bytes = b"") -> bytes:
    """Return a safetensors file of a header."""
    text = tree if isinstance(tree, bytes) else json.dumps(tree).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04\x95pickle",
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 90 * 2**20) + b"{}",
        header(b"{"),
        header(b"[" * 10000),
        header(b"\xff\xff"),
        header([]),
        header({"embedding.lin1.weight": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}, b"0000"),
        header({"embedding.lin1.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 400]}}, b"0000"),
        header({"embedding.lin1.weight": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"0000"),
        header({"embedding.lin1.weight": {"dtype": "Q99", "shape": [1], "data_offsets": [0, 4]}}, b"0000"),
        header({}),
        header({"__metadata__": {"format": 1}}),
        header({"\x1b[2J": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"0000"),
    ],
)
def test_weight_files_that_are_none(folder: Path, tmp_path: Path, data: bytes) -> None:
    without_hashes(folder)
    (folder / CONTROL_FILE).write_bytes(data)
    refused(folder, CONTROL_FILE)
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(InputError) as caught:
        describe(tmp_path / "x.safetensors")
    assert str(caught.value).isprintable()


def test_weight_files_that_are_no_files(folder: Path) -> None:
    for make in (
        lambda path: path.symlink_to(path.name),
        lambda path: path.symlink_to("absent"),
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.mkdir(),
        lambda path: os.mkfifo(path),
    ):
        (folder / CONTROL_FILE).rmdir() if (folder / CONTROL_FILE).is_dir() else (folder / CONTROL_FILE).unlink()
        make(folder / CONTROL_FILE)
        refused(folder, CONTROL_FILE)


def test_a_linked_file_is_read_as_the_hub_keeps_them(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / LORA_FILE, tmp_path / "blob")
    (folder / LORA_FILE).symlink_to("../blob")
    assert set(SavedAdapter.open(folder).digests) == {CONTROL_FILE, LORA_FILE, CARD}


def test_integers_are_no_weights(folder: Path) -> None:
    without_hashes(folder)
    weights = load_file(folder / LORA_FILE)
    name = next(iter(weights))
    save_file(weights | {name: weights[name].to(torch.int8)}, folder / LORA_FILE)
    refused(folder, "is I8; weights are F16")
