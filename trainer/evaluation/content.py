"""What a sweep keeps: consistency over its videos, agreement with the words, subject consistency and flicker.

Shapes: T frames, H rows, W columns, 3 channels; P prompts, S seeds, K videos, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from scenes.arrays import Bytes, Floats
from trainer.evaluation.accuracy import TRAINED
from trainer.evaluation.arms import PlannedSweep
from trainer.evaluation.features.extractors import TextScores, VideoFeatures
from trainer.evaluation.results import Consistency, EstimatedValue, Flicker, Svp, estimate, finite
from trainer.evaluation.similarity import flicker, outside_difference
from trainer.probing.statistics import bootstrap, mean, median

VideoKey = tuple[str, str]  # folder, name
Shelf = Callable[[VideoKey], Bytes]  # a video's frames [T, H, W, 3]


@dataclass
class Describer:
    """Features of videos by extractor, computed once each; the cache is this object's own."""

    extractors: Sequence[VideoFeatures]
    shelf: Shelf
    _videos: dict[tuple[str, VideoKey], Floats] = field(default_factory=dict)
    _words: dict[tuple[str, str], Floats] = field(default_factory=dict)

    def video(self, extractor: VideoFeatures, key: VideoKey) -> Floats:
        """Return a video's features [D]."""
        place = (extractor.name, key)
        if place not in self._videos:
            self._videos[place] = extractor.video(self.shelf(key))
        return self._videos[place]

    def words(self, extractor: TextScores, prompt: str) -> Floats:
        """Return a prompt's features [D]."""
        place = (extractor.name, prompt)
        if place not in self._words:
            self._words[place] = extractor.text(prompt)
        return self._words[place]


def key_of(sweep: PlannedSweep, place: int) -> VideoKey:
    """Return where a video of a sweep lies."""
    return sweep.arm.folder, sweep.videos[place].name


def consistency(
    arm: str, axis: str, sweeps_PS: Sequence[Sequence[PlannedSweep]], describer: Describer, rng: np.random.Generator
) -> Consistency:
    """Return how alike the videos of sweeps are to those at c = 0, over the trained range."""

    def over(measure: Callable[[VideoKey, VideoKey], float]) -> EstimatedValue:
        rows = [[mean(np.array([measure(*pair) for pair in _pairs(sweep)])) for sweep in row] for row in sweeps_PS]
        means_P = np.array([mean(np.array(row)) for row in rows])
        return estimate(bootstrap(lambda chosen: mean(means_P[chosen]), len(means_P), rng))

    def apart(one: VideoKey, other: VideoKey) -> float:
        found = outside_difference(describer.shelf(one), describer.shelf(other))
        return np.nan if found is None else found

    seeds = [pair for row in sweeps_PS for pair in _seed_pairs(row)]
    return Consistency(
        arm=arm,
        axis=axis,
        cosine={one.name: over(partial(_likeness, describer, one)) for one in describer.extractors},
        outside_levels=over(apart),
        other_seed_levels=finite(median(np.array([apart(*pair) for pair in seeds]))) if seeds else None,
        other_seed_cosine={
            one.name: finite(mean(np.array([_likeness(describer, one, *pair) for pair in seeds]))) if seeds else None
            for one in describer.extractors
        },
    )


def svp_scores(
    arm: str, sweeps: Sequence[PlannedSweep], describer: Describer, rng: np.random.Generator
) -> tuple[tuple[Svp, ...], Flicker]:
    """Return, by extractor, how videos of an arm fit the plain prompt, keep their subject at c = 0, and flicker."""
    videos: dict[str, dict[VideoKey, None]] = {}  # by prompt, each once
    neutral: dict[str, dict[VideoKey, None]] = {}
    for sweep in sweeps:
        neutral.setdefault(sweep.prompt, {})[sweep.arm.folder, sweep.reference.name] = None
        for place, control in enumerate(sweep.controls):
            if abs(control) <= TRAINED:
                videos.setdefault(sweep.prompt, {})[key_of(sweep, place)] = None
    count = sum(len(keys) for keys in videos.values())

    def over(by_prompt: Mapping[str, Iterable[VideoKey]], score: Callable[[str, VideoKey], float]) -> EstimatedValue:
        means_P = np.array([mean(np.array([score(prompt, key) for key in keys])) for prompt, keys in by_prompt.items()])
        return estimate(bootstrap(lambda chosen: mean(means_P[chosen]), len(means_P), rng))

    def flickers(_prompt: str, key: VideoKey) -> float:
        found = flicker(describer.shelf(key))
        return np.nan if found is None else found

    scores = []
    for extractor in describer.extractors:
        fits = EstimatedValue(value=None)
        if isinstance(extractor, TextScores):
            fits = over(videos, partial(_fit, describer, extractor))
        keeps = over(neutral, partial(_keeps, describer, extractor))
        scores.append(Svp(arm=arm, extractor=extractor.name, text_video=fits, subject_consistency=keeps, videos=count))
    return tuple(scores), Flicker(arm=arm, levels=over(videos, flickers))


def subject_consistency(extractor: VideoFeatures, frames_THW3: Bytes) -> float:
    """Return the mean cosine of the frames' features to the first frame's; NaN for a still."""
    if len(frames_THW3) < 2:
        return float("nan")
    first_D, *others = (extractor.video(frames_THW3[at : at + 1]) for at in range(len(frames_THW3)))
    return float(np.mean([cosine(first_D, other_D) for other_D in others]))


def cosine(one_D: Floats, other_D: Floats) -> float:
    """Return the cosine of two features, NaN where one is zero."""
    length = float(np.linalg.norm(one_D) * np.linalg.norm(other_D))
    return float(one_D @ other_D) / length if length else float("nan")


def by_prompt_and_seed(sweeps: Sequence[PlannedSweep]) -> list[list[PlannedSweep]]:
    """Return the sweeps of one arm and axis as rows of seeds, one row for each prompt."""
    rows: dict[str, list[PlannedSweep]] = {}
    for sweep in sweeps:
        rows.setdefault(sweep.prompt, []).append(sweep)
    return [sorted(row, key=lambda sweep: sweep.seed) for row in rows.values()]


def grouped(sweeps: Sequence[PlannedSweep]) -> Mapping[tuple[str, str], list[PlannedSweep]]:
    """Return sweeps by arm and axis, in their order."""
    groups: dict[tuple[str, str], list[PlannedSweep]] = {}
    for sweep in sweeps:
        groups.setdefault((sweep.arm.name, sweep.axis.name), []).append(sweep)
    return groups


def _pairs(sweep: PlannedSweep) -> list[tuple[VideoKey, VideoKey]]:
    reference = (sweep.arm.folder, sweep.reference.name)
    places = [place for place, control in enumerate(sweep.controls) if 1e-9 < abs(control) <= TRAINED]
    return [(key_of(sweep, place), reference) for place in places]


def _seed_pairs(row: Sequence[PlannedSweep]) -> list[tuple[VideoKey, VideoKey]]:
    keys = [(sweep.arm.folder, sweep.reference.name) for sweep in row]
    return [(keys[0], other) for other in keys[1:]]


def _likeness(describer: Describer, extractor: VideoFeatures, one: VideoKey, other: VideoKey) -> float:
    return cosine(describer.video(extractor, one), describer.video(extractor, other))


def _keeps(describer: Describer, extractor: VideoFeatures, _prompt: str, key: VideoKey) -> float:
    return subject_consistency(extractor, describer.shelf(key))


def _fit(describer: Describer, extractor: TextScores, prompt: str, key: VideoKey) -> float:
    return cosine(describer.video(extractor, key), describer.words(extractor, prompt))
