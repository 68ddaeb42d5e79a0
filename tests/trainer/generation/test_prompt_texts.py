"""Texts as people write them: lines, marks, scripts, lengths; what is drawn, what is cut, and what is said of it."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from generation_support import save_random, small_config
from PIL import Image, ImageDraw

from generator.recipe.load import read_text
from scenes.errors import InputError
from trainer.adapters.saved import SavedAdapter
from trainer.backbones.load import load_backbone
from trainer.backbones.text_length import length_notes, token_ids
from trainer.generation.fonts import draw_line, fitted, not_drawable, width
from trainer.generation.grid import lay_out, still_grid
from trainer.generation.make_videos import Request, request_notes
from trainer.generation.plan import make_rows
from trainer.generation.prompts import Prompt, read_prompts
from trainer.generation.sampler import Sampling
from trainer.pipelines.controlled_wan import ControlledWan

FACE = ("DejaVuSerif-Italic", 13)
LINES = "a red ball\u2028rolls\n\x0bone\x0btwo\x0b\r\n# not this\n\n\u2028\n一只球\n"
WORDS = ["a red ball\u2028rolls", "one\x0btwo", "一只球"]


@pytest.mark.parametrize(("mark", "suffix"), product(("", "\ufeff"), (".txt", ".jsonl", ".toml")))
def test_a_prompt_ends_at_a_line_feed_and_a_mark_is_no_part_of_it(mark: str, suffix: str, tmp_path: Path) -> None:
    """Files of Windows' editors begin with a mark; U+2028 and vertical tabs stand within texts and end no line."""
    contents = {
        ".txt": LINES,
        ".jsonl": '{"prompt": "a red ball\u2028rolls"}\n\n{"prompt": "one\\u000btwo"}\r\n{"prompt": "一只球"}',
        ".toml": 'prompts = [{prompt = "a red ball\u2028rolls"}, {prompt = "one\\u000btwo"}, {prompt = "一只球"}]',
    }
    path = tmp_path / f"prompts{suffix}"
    path.write_bytes((mark + contents[suffix]).encode())
    assert [prompt.prompt for prompt in read_prompts(path)] == WORDS


def test_a_recipe_may_begin_with_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes("\ufeffseed = 1\r\n".encode())
    assert read_text(path) == "seed = 1\r\n"


def ink(text: str) -> int:
    """Return how many pixels a line of text takes on paper."""
    page = Image.new("RGB", (400, 40), "white")
    draw_line(ImageDraw.Draw(page), (4, 4), text, "black", *FACE)
    return int((np.asarray(page) < 128).all(2).sum())


def test_what_a_font_lacks_another_draws_and_what_none_has_is_a_box() -> None:
    """An emoji is drawn by a face that has it; a character that no font can have is a box, and can be named."""
    assert not_drawable(["a car 😀, e\u0301té, \u200d\ufe0f"]) == ""
    assert not_drawable(["a\U0010fffd b\U0010fffd", "\U0010fffc"]) == "\U0010fffd\U0010fffc"
    assert ink("\U0010fffd") == ink("□") > 0
    assert ink("😀") not in (0, ink("□"))
    assert ink("a\u200d\ufe0f") == ink("a")


@pytest.mark.parametrize("text", ["two\nlines \t of\u2028text", "long " * 200, "😀" * 300, "", "球" * 80])
def test_a_line_is_one_line_and_fits(text: str) -> None:
    draw = ImageDraw.Draw(Image.new("RGB", (10, 10)))
    for room in (30.0, 150.0, 1e9):
        line = fitted(draw, text, room, *FACE)
        assert "\n" not in line and width(draw, line, *FACE) <= room
        assert line == " ".join(text.split()) if room == 1e9 else True


def test_a_grid_of_prompts_of_two_lines_and_of_other_scripts() -> None:
    axes = small_config("shutter").control.axes
    rows = make_rows(axes, [Prompt(prompt="a ball\nrolls"), Prompt(prompt="红色的球 😀")], [{"shutter": 0.0}], ["decoupled"])
    layout = lay_out(rows, "two\nlines", "facts", (32, 32))
    page = still_grid(layout, rows, lambda video: np.zeros((1, 32, 32, 3), np.uint8))
    assert page.shape == (layout.page.height, layout.page.width, 3)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> ControlledWan:
    """The tiny backbone, in a pipeline without an adapter."""
    pipe = load_backbone("tiny-random", cache=tmp_path_factory.mktemp("texts"))
    return ControlledWan.around(pipe, {})


def test_texts_are_said_to_be_alike_where_the_model_cannot_tell_them_apart(bare: ControlledWan) -> None:
    """At every length: what is named as cut changes by the cut, what is named as alike has one embedding."""
    words = "A large orange capsule rolls on a grey floor against a lavender"
    texts = {"clip one": f"{words} wall", "clip two": f"{words} background", "clip short": "a ball"}
    longest = len(token_ids(bare.tokenizer, texts["clip two"]))
    for length in range(2, longest + 2):
        first, second = (
            bare.encode_prompt(texts[name], do_classifier_free_guidance=False, max_sequence_length=length)[0]
            for name in ("clip one", "clip two")
        )
        notes = " ".join(length_notes(bare.tokenizer, texts, length, "raise it"))
        assert ("clip one and clip two" in notes) == torch.equal(first, second), length
        assert ("clip two (" in notes) == (longest > length)
        assert ("clip short" in notes) == (len(token_ids(bare.tokenizer, "a ball")) > length)
    assert length_notes(bare.tokenizer, texts, 512, "raise it") == ()


def test_a_request_says_what_does_nothing(bare: ControlledWan, tmp_path: Path) -> None:
    adapter = SavedAdapter.open(save_random(bare, tmp_path / "adapter", small_config("shutter")))

    def notes(guidance: float, negative: str, tokens: int = 12) -> str:
        rows = make_rows((), [Prompt(prompt="a\nball")], [{}], ["backbone_only"], negative=negative)
        sampling = Sampling(guidance=guidance, text_tokens=tokens)
        return " | ".join(request_notes(bare, Request(out=tmp_path, adapter=adapter, rows=rows, sampling=sampling)))

    assert notes(3.0, "rain") == notes(1.0, "") == ""
    assert "the negative prompt does nothing at guidance 1" in notes(1.0, "rain")
    assert "prompt 'a ball' (" in notes(3.0, "", tokens=2) and "raise --text-tokens" in notes(3.0, "", tokens=2)


def test_float16_is_the_same_backbone_and_a_copy_saved_so_is_another(tmp_path: Path) -> None:
    from trainer.backbones.load import fingerprint, forget_written

    wide, narrow = (load_backbone("tiny-random", cache=tmp_path, dtype=dtype) for dtype in (torch.float32, torch.float16))
    assert narrow.transformer.patch_embedding.weight.dtype == torch.float16
    assert fingerprint(narrow.transformer) == fingerprint(wide.transformer)
    forget_written(narrow.transformer)
    narrow.save_pretrained(tmp_path / "copy")
    copy = load_backbone(str(tmp_path / "copy"), dtype=torch.float32)
    assert fingerprint(copy.transformer) == fingerprint(narrow.transformer) != fingerprint(wide.transformer)


def test_numbers_of_other_libraries_are_numbers_and_true_is_none() -> None:
    from trainer.control.numbers import finite_number, is_number

    numbers = [0.5, 1, np.float32(0.5), np.int64(1), np.array(0.5), torch.tensor(0.5), torch.tensor(1, dtype=torch.int64)]
    assert [is_number(number) for number in numbers] == [True] * len(numbers)
    assert {finite_number(number, "shutter") for number in numbers} == {0.5, 1.0}
    for other in (True, np.True_, torch.tensor(True), "1", None, [1.0], np.array([1.0]), torch.ones(1), 1j):
        assert not is_number(other)
        with pytest.raises(InputError, match="of shutter is not a number"):
            finite_number(other, "shutter")
