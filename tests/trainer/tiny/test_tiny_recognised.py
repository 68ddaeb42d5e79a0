"""What the quality stage sees of things: their kinds, colours and sizes, how steady outlines are, and distances of features."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from scenes.palette import COLORS, to_bytes
from trainer.tiny.quality.colors import both_colors
from trainer.tiny.quality.found import thing_masks
from trainer.tiny.quality.outline import outline_overlap
from trainer.tiny.quality.quality import drawn_pairs, drawn_prompts
from trainer.tiny.quality.recogniser import (
    NAMED_KINDS,
    SIZES,
    Named,
    Recogniser,
    RecogniserStage,
    cut_things,
    frechet,
    named_things,
    recognise,
    shares_recognised,
)
from trainer.tiny.shared.clips import Clips, Entry
from trainer.tiny.shared.config import RecogniserSettings
from trainer.tiny.shared.train_stage import train_stage

Bytes = NDArray[np.uint8]
RADII = {"small": 6, "large": 14}
SHAPES: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]] = {
    "sphere": np.hypot,
    "cube": lambda x, y: np.maximum(abs(x), abs(y)),
}


def drawn(things: list[tuple[str, str, str, float]], frames: int = 5, drift: float = 0.0, boil: float = 0.0) -> Bytes:
    """Return frames of things (size, colour, kind, column) on grey that drift down and, if asked, change their outline."""
    rows, columns = np.mgrid[:64, :64] + 0.5
    rng, video = np.random.default_rng(0), np.full((frames, 64, 64, 3), 0.2)
    for frame in range(frames):
        for size, color, kind, column in things:
            reach = SHAPES[kind](columns - column, rows - 24 - drift * frame)
            reach = reach + boil * rng.standard_normal(reach.shape) * (abs(reach - RADII[size]) < 4)
            video[frame][reach < RADII[size]] = COLORS[color]
    return to_bytes(video)


@pytest.fixture(scope="module")
def shapes() -> Clips:
    """Return clips of single things, a fifth of them held out."""
    rng, entries, videos = np.random.default_rng(1), [], []
    for index in range(120):
        size, color, kind = (str(rng.choice(list(choices))) for choices in (RADII, ("red", "blue"), SHAPES))
        videos.append(drawn([(size, color, kind, float(rng.uniform(16, 48)))]))
        split = "test" if index % 5 == 0 else "train"
        entries.append(Entry(f"clip-{index}", 5 * index, 5, f"A {size} {color} {kind} moves upwards.", split, {}))
    return Clips(tuple(entries), np.concatenate(videos))


@pytest.fixture(scope="module")
def recogniser(shapes: Clips, tmp_path_factory: pytest.TempPathFactory) -> Recogniser:
    settings = RecogniserSettings(width=4, features=8, steps=200, batch=32, rate=1e-2)
    stage = RecogniserStage(settings, shapes)
    train_stage(stage, settings.optimizing, tmp_path_factory.mktemp("recogniser"))
    assert isinstance(stage.module, Recogniser)
    return stage.module.eval()


def test_captions_name_their_things() -> None:
    text = "Against an ivory backdrop, a large navy hexagonal prism floats on the left and two icospheres and a red torus spin."
    assert named_things(text) == (Named("large", "navy", "hexagonal prism"), Named("", "red", "torus"))
    assert named_things("Two small lime tori fly upwards.") == (Named("small", "lime", "torus"),)
    assert all(len(named_things(prompt.text)) == 1 and named_things(prompt.text)[0].size for prompt in drawn_prompts(30))
    assert all(len({thing.color for thing in named_things(text)}) == 2 for text in drawn_pairs(20))


def test_what_is_drawn_is_recognised_and_what_is_not_is_not(shapes: Clips, recogniser: Recogniser) -> None:
    held = shapes.split("test")
    seen = recognise(recogniser, [shapes.video(entry) for entry in held])
    true = shares_recognised(seen, [entry.caption for entry in held])
    assert true["named_kind_of_24"] > 0.9
    assert true["named_size_of_24"] > 0.9
    wrong = [e.caption.replace("sphere", "?").replace("cube", "sphere").replace("?", "cube") for e in held]
    assert shares_recognised(seen, wrong)["named_kind_of_24"] < 0.1
    both = drawn([("small", "red", "sphere", 16), ("small", "blue", "cube", 48)])
    pair = "A small red sphere on the left and a small blue cube on the right."
    assert shares_recognised(recognise(recogniser, [both]), [pair])["both_kinds_of_1"] == 1.0
    nothing = recognise(recogniser, [drawn([])])
    assert shares_recognised(nothing, ["A large red cube flies upwards."]) == {"named_kind_of_1": 0.0, "named_size_of_1": 0.0}


def test_what_lies_where_a_thing_is_is_told_and_nothing_else() -> None:
    video = drawn([("large", "red", "sphere", 20), ("small", "blue", "cube", 50)], frames=1)
    things = [
        {"kind": "sphere", "color": "red", "boxes": [[6.0, 10.0, 34.0, 38.0]]},
        {"kind": "cube", "color": "blue", "boxes": [[2.0, 50.0, 14.0, 62.0]]},  # not where the blue cube is
    ]
    entry = Entry("clip", 0, 1, "A large red sphere and a small blue cube fly upwards.", "train", {}, things)
    told = cut_things(Clips((entry,), video), [entry])
    assert [NAMED_KINDS[kind] for kind in told.kinds] == ["sphere"]
    assert [SIZES[size] for size in told.sizes] == ["large"]
    assert told.sides.tolist() == [28.0]


def test_two_things_have_their_colours_under_any_cast() -> None:
    video = drawn([("large", "red", "sphere", 18), ("large", "blue", "cube", 48)])
    warm = np.rint(video * np.array([1.0, 0.8, 0.5])).astype(np.uint8)
    caption = "A large {} sphere on the left and a large {} cube on the right, in front of a dark grey backdrop."
    for shown in (video, warm):
        assert both_colors(shown, caption.format("red", "blue"))
        assert not both_colors(shown, caption.format("red", "green"))
    assert not both_colors(drawn([("large", "red", "sphere", 18)]), caption.format("red", "blue"))
    assert both_colors(video, "A large red sphere on the left and a large blue cube on the right.") is None


def test_features_of_the_same_clips_lie_nearer_than_those_of_others(shapes: Clips, recogniser: Recogniser) -> None:
    videos = [shapes.video(entry) for entry in shapes.split("train")]
    some, others = (recognise(recogniser, videos[start::2]).features for start in (0, 1))
    noise = np.random.default_rng(0).integers(256, size=(48, 5, 64, 64, 3), dtype=np.uint8)
    assert frechet(some, some) == pytest.approx(0, abs=1e-3)
    assert frechet(some, recognise(recogniser, list(noise)).features) > 5 * frechet(some, others)


def test_a_distance_of_normal_distributions_is_the_closed_one() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((20000, 3)), 2 * rng.standard_normal((20000, 3)) + 1
    assert frechet(a, b) == pytest.approx(3 * 1 + 3 * (2 - 1) ** 2, rel=0.05)


def test_a_steady_outline_overlaps_wherever_it_goes_and_a_boiling_one_does_not() -> None:
    steady = outline_overlap(thing_masks(drawn([("large", "red", "cube", 30)], drift=3.3)))
    boiling = outline_overlap(thing_masks(drawn([("large", "red", "cube", 30)], drift=3.3, boil=4.0)))
    assert steady is not None and boiling is not None
    assert steady > 0.93
    assert boiling < 0.85
    assert outline_overlap(thing_masks(drawn([]))) is None
    assert outline_overlap(thing_masks(drawn([("large", "red", "cube", 2)]))) is None, "what the border cuts has no outline"
