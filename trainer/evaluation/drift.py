"""FEP over arms, and drift over training: how far an adapter moves the clean backbone, in one denoising step.

Prompt n of each seed starts from the same noise in every arm. Its controls are spread evenly over [-1, 1], each axis in an
order of its own, so that an arm is judged where it is used. `NOISE FLOOR` is the clean backbone from other noise.

Shapes: N videos, A axes, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from scenes.arrays import Floats
from scenes.errors import InputError
from trainer.adapters.saved import SavedAdapter
from trainer.config.evaluate import EvaluateSettings
from trainer.control.modes import default_mode
from trainer.evaluation.arms import Arm
from trainer.evaluation.features.distances import MIN_SAMPLES
from trainer.evaluation.features.extractors import VideoFeatures
from trainer.evaluation.features.fep import compare, one_step
from trainer.evaluation.results import Drift, DriftPoint, Fep
from trainer.generation.load_pipeline import Loading, place
from trainer.generation.sampler import Sampling, generation_of
from trainer.methods.control.task import by_expert
from trainer.pipelines.controlled_wan import ControlledWan
from trainer.training.checkpoints.checkpoint import checkpoint_path, checkpoint_steps, read_checkpoint

NOISE_FLOOR = "noise floor"
OTHER_NOISE = 1_000_003  # added to seeds for the noise floor
SEED_STRIDE = 10_007  # between the noise of two seeds of the settings: prompt n starts from seed + n


@dataclass(frozen=True, kw_only=True)
class FepSet:
    """What every arm is judged on: a prompt, the controls and the noise of each video."""

    prompts_N: tuple[str, ...]
    points_N: tuple[Mapping[str, float], ...]  # axis -> control
    seeds_N: tuple[int, ...]
    sampling: Sampling

    @classmethod
    def of(cls, prompts: Sequence[str], axes: Sequence[str], settings: EvaluateSettings, sampling: Sampling) -> FepSet:
        """Return the set of all prompts and seeds; raises InputError for too few prompts for a Fréchet distance."""
        check_prompts(prompts)
        count = len(prompts) * settings.seeds
        rng = np.random.default_rng(settings.seed)
        even_N = -1.0 + 2.0 * (np.arange(count) + 0.5) / count
        columns = {axis: rng.permutation(even_N) for axis in axes}
        return cls(
            prompts_N=tuple(prompts) * settings.seeds,
            points_N=tuple({axis: float(column[n]) for axis, column in columns.items()} for n in range(count)),
            seeds_N=tuple(settings.seed + SEED_STRIDE * s + n for s in range(settings.seeds) for n in range(len(prompts))),
            sampling=sampling,
        )


def check_prompts(prompts: Sequence[str]) -> None:
    """Raise InputError for fewer prompts than a Fréchet distance needs."""
    if len(prompts) < MIN_SAMPLES:
        raise InputError(
            f"{len(prompts)} prompts are too few for a Fréchet distance; give at least {MIN_SAMPLES}, or leave it out with "
            "--no-fep"
        )


def fep_features(
    pipe: ControlledWan, arm: Arm, fep_set: FepSet, extractors: Sequence[VideoFeatures], *, shift: int = 0
) -> dict[str, Floats]:
    """Return the features [N, D] of an arm's one-step videos by extractor; `shift` moves the noise."""
    rows: dict[str, list[Floats]] = {extractor.name: [] for extractor in extractors}
    for prompt, point, seed in zip(fep_set.prompts_N, fep_set.points_N, fep_set.seeds_N, strict=True):
        controls_A = [point.get(axis.name, 0.0) for axis in pipe.axes]  # another adapter may have fewer axes
        words = f"{prompt}, {_effect(pipe, controls_A)}" if arm.words else prompt
        frames_THW3 = one_step(pipe, words, controls_A, mode=arm.mode, seed=seed + shift, sampling=fep_set.sampling)
        for extractor in extractors:
            rows[extractor.name].append(extractor.video(frames_THW3))
    return {name: np.stack(found) for name, found in rows.items()}


def fast_table(
    features: Mapping[str, Mapping[str, Floats]], backbone: str, extractors: Sequence[VideoFeatures]
) -> tuple[Fep, ...]:
    """Return FEP of every arm but the clean backbone's own, against it; `features` are by arm and extractor."""
    table = []
    for arm, by_extractor in features.items():
        if arm == backbone:
            continue
        for extractor in extractors:
            scores = compare(by_extractor[extractor.name], features[backbone][extractor.name], extractor)
            table.append(
                Fep(
                    arm=arm,
                    extractor=scores.extractor,
                    ssf=scores.ssf,
                    ss_fd=scores.ss_fd,
                    dvs=scores.dvs,
                    videos=scores.videos,
                )
            )
    return tuple(table)


@contextmanager
def carrying(pipe: ControlledWan, own: SavedAdapter, other: SavedAdapter, loading: Loading) -> Iterator[None]:
    """Let a pipeline carry another adapter for a while, and its own again afterwards."""
    _exchange(pipe, other, loading)
    try:
        yield
    finally:
        _exchange(pipe, own, loading)


@contextmanager
def at_checkpoint(pipe: ControlledWan, run: Path, step: int) -> Iterator[None]:
    """Give a pipeline's adapters the weights of a run's checkpoint for a while.

    Raises InputError for a checkpoint that is damaged or of another adapter.
    """
    path = checkpoint_path(run, step)
    try:
        checkpoint = read_checkpoint(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({error}); leave it out of --drift") from None
    weights = by_expert(checkpoint.averaged if checkpoint.averaged is not None else checkpoint.parameters)
    own = {name: adapter.parameters() for name, adapter in pipe.adapters.items()}
    names = {name: set(parameters) for name, parameters in own.items()}
    if {name: set(tensors) for name, tensors in weights.items()} != names:
        raise InputError(f"{path} is of another adapter than the one evaluated; give the run that trained it")
    kept = {name: {key: p.detach().clone() for key, p in parameters.items()} for name, parameters in own.items()}
    try:
        _copy(own, weights)
        yield
    finally:
        _copy(own, kept)


def drift(
    pipe: ControlledWan,
    adapter: SavedAdapter,
    sources: Sequence[Path | SavedAdapter],
    fep_set: FepSet,
    backbone: Arm,
    extractor: VideoFeatures,
    loading: Loading,
) -> Drift:
    """Return SSF and SS-FD at each training step: of runs' checkpoints, and of adapters, in the adapter's own mode."""
    mode = str(default_mode(adapter.card.config))
    arm = Arm(name=mode, mode=mode, adapter=adapter, folder="")
    clean = fep_features(pipe, backbone, fep_set, [extractor])[extractor.name]
    points: dict[int, DriftPoint] = {}

    def measure(step: int) -> None:
        scores = compare(fep_features(pipe, arm, fep_set, [extractor])[extractor.name], clean, extractor)
        points[step] = DriftPoint(step=step, ssf=scores.ssf, ss_fd=scores.ss_fd)

    for source in sources:
        if isinstance(source, SavedAdapter):
            with carrying(pipe, adapter, source, loading):
                measure(source.card.step)
            continue
        for step in checkpoint_steps(source):
            with at_checkpoint(pipe, source, step):
                measure(step)
    if adapter.card.step not in points:
        measure(adapter.card.step)
    ordered = tuple(points[step] for step in sorted(points))
    return Drift(mode=mode, extractor=extractor.name, points=ordered, per_1000_steps=drift_rate(ordered))


def drift_rate(points: Sequence[DriftPoint]) -> float | None:
    """Return the least-squares slope of SS-FD over steps, per 1000 steps; None below two steps."""
    if len(points) < 2:
        return None
    steps = np.array([point.step for point in points], dtype=np.float64) / 1000.0
    return float(np.polyfit(steps, [point.ss_fd for point in points], 1)[0])


def _effect(pipe: ControlledWan, controls_A: Sequence[float]) -> str:
    """Return words for the effects of controls, one phrase for each axis."""
    return ", ".join(axis.axis.effect_words[control > 0] for axis, control in zip(pipe.axes, controls_A, strict=True))


def _exchange(pipe: ControlledWan, saved: SavedAdapter, loading: Loading) -> None:
    """Take a pipeline's adapters off and put another's on; what asks the pipeline for its adapters sees the new ones."""
    assert loading.device is not None
    for adapter in pipe.adapters.values():
        adapter.detach()
    pipe.adapters = {}
    carrier = generation_of(saved.method).pipeline(pipe, saved, allow_other_backbone=loading.allow_other_backbone)
    carrier.set_progress_bar_config(disable=True)
    place(carrier, loading.device, loading.offload)
    pipe.adapters = carrier.adapters


@torch.no_grad()
def _copy(parameters: Mapping[str, Mapping[str, torch.Tensor]], weights: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
    for name, own in parameters.items():
        for key, parameter in own.items():
            parameter.copy_(weights[name][key])
