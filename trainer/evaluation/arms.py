"""What an evaluation generates: arms (a mode of an adapter, or words in the place of a control) against sweeps of each axis.

A video's name is a function of what it shows, so that what arms and axes share (c = 0, a mode without control) is made once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scenes.errors import InputError
from trainer.adapters.card import AdapterCard
from trainer.adapters.saved import SavedAdapter
from trainer.config.evaluate import EvaluateSettings, parse_controls
from trainer.control.laws import AxisControl
from trainer.control.modes import PARTS, Mode, check_mode, default_mode
from trainer.generation.plan import PlannedVideo, Row, make_rows
from trainer.generation.prompts import Prompt

TEXT = "text prompting"
ADAPTER_ONLY = "adapter_only"
WORD_CONTROLS = (-1.0, 0.0, 1.0)  # words know less, nothing and more


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to make videos: a mode of an adapter; `words` puts the effect's words behind the prompt instead of a control."""

    name: str
    mode: str
    adapter: SavedAdapter
    folder: str  # of its videos, within the evaluation's folder
    words: bool = False

    @property
    def controlled(self) -> bool:
        """Whether the control acts at all."""
        return PARTS[Mode(self.mode)].control


@dataclass(frozen=True, kw_only=True)
class PlannedSweep:
    """The videos of one arm, axis, prompt and seed, one per control; an arm without control has the same one throughout."""

    arm: Arm
    axis: AxisControl
    prompt: str
    seed: int
    controls: tuple[float, ...]
    videos: tuple[PlannedVideo, ...]

    @property
    def reference(self) -> PlannedVideo:
        """The video at c = 0."""
        return self.videos[self.controls.index(0.0)]


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """All sweeps, and the rows of videos that they need, by folder; each video stands in one row."""

    sweeps: tuple[PlannedSweep, ...]
    rows: Mapping[str, tuple[Row, ...]]


def chosen_axes(adapter: SavedAdapter, names: Sequence[str] | None = None) -> tuple[AxisControl, ...]:
    """Return the axes to sweep; raises InputError for one that the adapter lacks, and for an adapter without control."""
    control = adapter.card.config.control
    axes = control.axes if control is not None else ()
    if not axes:
        raise InputError(f"adapter {adapter.folder} controls nothing (it is a LoRA alone); evaluate one with a control adapter")
    by_name = {axis.name: axis for axis in axes}
    for name in names or ():
        if name not in by_name:
            raise InputError(f"adapter {adapter.folder} does not control '{name}'; it controls {', '.join(by_name)}")
    if names is not None and len(set(names)) != len(names):
        raise InputError(f"axes {', '.join(names)}: one stands twice; name each once")
    return tuple(by_name[name] for name in names) if names is not None else axes


def chosen_arms(adapter: SavedAdapter, settings: EvaluateSettings, adapter_only: SavedAdapter | None) -> tuple[Arm, ...]:
    """Return the arms to compare: modes that the adapter has, the clean backbone, words, and another adapter's control.

    The adapter's own mode and the backbone are always among them. Raises InputError for a mode that needs what it lacks.
    """
    card = adapter.card
    own = str(default_mode(card.config))
    # An adapter without LoRA has no joint or decoupled mode; the default settings name them all the same.
    default = EvaluateSettings.model_fields["modes"].default
    modes = [mode for mode in settings.modes if settings.modes != default or _has(mode, card)]
    for mode in modes:
        check_mode(mode, card.config)
    ordered = dict.fromkeys([own, *modes, str(Mode.BACKBONE_ONLY)])
    arms = [Arm(name=mode, mode=mode, adapter=adapter, folder="videos") for mode in ordered]
    if adapter_only is not None:
        arms.append(Arm(name=ADAPTER_ONLY, mode=str(Mode.CONTROL_ONLY), adapter=adapter_only, folder="videos-adapter-only"))
    if settings.text_baseline:
        arms.append(Arm(name=TEXT, mode=str(Mode.BACKBONE_ONLY), adapter=adapter, folder="videos", words=True))
    return tuple(arms)


def make_evaluation_plan(
    axes: Sequence[AxisControl],
    every_axis: Mapping[SavedAdapter, Sequence[AxisControl]],
    arms: Sequence[Arm],
    prompts: Mapping[str, Sequence[str]],
    settings: EvaluateSettings,
) -> EvaluationPlan:
    """Return the sweeps of `axes` and the videos that they need; `every_axis` are those of each adapter, `prompts` by axis."""
    controls = parse_controls(settings.controls)
    sweeps: list[PlannedSweep] = []
    for arm in arms:
        for axis in axes:
            for prompt in prompts[axis.name]:
                for seed in range(settings.seed, settings.seed + settings.seeds):
                    sweeps.append(_sweep(arm, axis, every_axis[arm.adapter], prompt, seed, controls))
    folders = dict.fromkeys(arm.folder for arm in arms)
    return EvaluationPlan(
        sweeps=tuple(sweeps), rows={f: _rows([sweep for sweep in sweeps if sweep.arm.folder == f]) for f in folders}
    )


def _sweep(
    arm: Arm, axis: AxisControl, every_axis: Sequence[AxisControl], prompt: str, seed: int, controls: tuple[float, ...]
) -> PlannedSweep:
    def video(words: str, control: float) -> PlannedVideo:
        point = {axis.name: control} if control else {}  # c = 0 is the same video for every axis
        (row,) = make_rows(every_axis, [Prompt(prompt=words)], [point], [arm.mode], seed=seed)
        return row.videos[0]

    if arm.words:
        weaker, stronger = axis.axis.effect_words
        told = {-1.0: f"{prompt}, {weaker}", 0.0: prompt, 1.0: f"{prompt}, {stronger}"}
        videos = tuple(video(told[control], 0.0) for control in WORD_CONTROLS)
        return PlannedSweep(arm=arm, axis=axis, prompt=prompt, seed=seed, controls=WORD_CONTROLS, videos=videos)
    videos = tuple(video(prompt, control if arm.controlled else 0.0) for control in controls)
    return PlannedSweep(arm=arm, axis=axis, prompt=prompt, seed=seed, controls=controls, videos=videos)


def _rows(sweeps: Sequence[PlannedSweep]) -> tuple[Row, ...]:
    """Return every video once, grouped by prompt, seed and mode."""
    groups: dict[tuple[str, int, str], dict[str, PlannedVideo]] = {}
    for video in (video for sweep in sweeps for video in sweep.videos):
        groups.setdefault((video.prompt, video.seed, video.mode), {})[video.name] = video
    return tuple(
        Row(prompt=prompt, negative="", seed=seed, mode=mode, videos=tuple(videos.values()))
        for (prompt, seed, mode), videos in groups.items()
    )


def _has(mode: str, card: AdapterCard) -> bool:
    parts = PARTS[Mode(mode)]
    return not (parts.control and card.config.control is None) and not (parts.lora != "none" and card.config.lora is None)
