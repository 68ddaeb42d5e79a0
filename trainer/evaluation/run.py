"""A whole evaluation: generates what is missing, reads it with the probes, compares arms, writes report.json.

OUT/videos/, OUT/videos-adapter-only/   a video and its record each; made once and kept
OUT/readings.jsonl                      what the probes said; read once and kept
OUT/report.json, OUT/results.md         every number; the same as text for a model card
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Protocol

from generator.io.atomic import write_atomic
from generator.io.checked_model import checked
from scenes.arrays import Floats
from scenes.axes import AXES
from scenes.control_axis import PROBES_VERSION
from scenes.errors import InputError
from trainer.adapters.card import AdapterCard, installed_versions
from trainer.adapters.place import run_of
from trainer.adapters.saved import SavedAdapter
from trainer.config.evaluate import EvaluateSettings
from trainer.control.laws import AxisControl
from trainer.control.modes import Mode, default_mode
from trainer.evaluation.arms import ADAPTER_ONLY, Arm, EvaluationPlan, chosen_arms, chosen_axes, make_evaluation_plan
from trainer.evaluation.axis_prompts import EvaluationPrompts, gather
from trainer.evaluation.drift import (
    NOISE_FLOOR,
    OTHER_NOISE,
    FepSet,
    carrying,
    check_prompts,
    drift,
    fast_table,
    fep_features,
)
from trainer.evaluation.features.extractors import BackboneFeatures, ClipFeatures, VideoFeatures, XClipFeatures
from trainer.evaluation.published_numbers import PUBLISHED
from trainer.evaluation.results import FILE, Drift, EvaluationReport, Fep, Validated
from trainer.evaluation.results_markdown import results_text
from trainer.evaluation.score import measure, other_axes
from trainer.evaluation.verdict import verdict
from trainer.generation.load_pipeline import Loading, default_sampling, load_controlled, resolved
from trainer.generation.make_videos import Request, make_videos
from trainer.generation.plan import PlannedVideo
from trainer.generation.sampler import Sampling
from trainer.pipelines.controlled_wan import ControlledWan
from trainer.probing.statistics import MIN_PROMPTS
from trainer.training.callbacks.metrics import FILE as METRICS
from trainer.training.callbacks.metrics import read_events
from trainer.training.checkpoints.checkpoint import latest_identity

NO_VQA = "VQAScore is left out: package t2v_metrics is not installed"
VQA_UNUSED = "VQAScore is left out: t2v_metrics is installed, but this version of Stopdown does not drive it"


class EvaluationWatch(Protocol):
    """Told how far an evaluation is."""

    def started(self, videos: int, finished: int, steps: int) -> None:
        """Videos are to be made, of which some were before; each takes `steps` denoising steps."""
        ...

    def stepped(self, steps: int) -> None:
        """So many denoising steps were made since the last call."""
        ...

    def done(self, video: PlannedVideo) -> None:
        """A video is on the disk."""
        ...

    def note(self, words: str) -> None:
        """Something worth knowing."""
        ...


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest:
    """What to evaluate with what; prompts come from `settings`, or else from `prompts` or `dataset`, one of them.

    `drift` are training runs with checkpoints, or adapters of several steps.
    """

    adapter: SavedAdapter
    out: Path
    settings: EvaluateSettings = field(default_factory=EvaluateSettings)
    prompts: Path | None = None
    dataset: Path | None = None
    ref: str = "latest"
    adapter_only: SavedAdapter | None = None
    drift: tuple[Path | SavedAdapter, ...] = ()
    replace_others: bool = False  # videos of other settings in `out` are made anew instead of refused
    loading: Loading = field(default_factory=Loading)
    cache: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A request with everything decided that needs no backbone."""

    axes: tuple[AxisControl, ...]
    arms: tuple[Arm, ...]
    prompts: EvaluationPrompts
    plan: EvaluationPlan
    loading: Loading
    main: str


def prepare(request: EvaluateRequest) -> Prepared:
    """Check a request and decide its arms, prompts and videos; raises InputError for all that needs no backbone to be wrong."""
    card = request.adapter.card
    axes = chosen_axes(request.adapter, request.settings.axes)
    arms = chosen_arms(request.adapter, request.settings, request.adapter_only)
    if request.adapter_only is not None:
        chosen_axes(request.adapter_only, [axis.name for axis in axes])
    prompts = gather(request.settings, [axis.name for axis in axes], request.prompts, request.dataset, request.ref)
    if request.settings.fep:
        check_prompts(prompts.all)
    elif request.drift:
        raise InputError("--drift is measured in one denoising step and --no-fep leaves that out; give one of them")
    every_axis = {arm.adapter: chosen_axes(arm.adapter) for arm in arms}
    return Prepared(
        axes=axes,
        arms=arms,
        prompts=prompts,
        plan=make_evaluation_plan(axes, every_axis, arms, prompts.by_axis, request.settings),
        loading=resolved(request.loading, card),
        main=str(default_mode(card.config)),
    )


def generate_videos(request: EvaluateRequest, watch: EvaluationWatch) -> int:
    """Make the videos of an evaluation and read none of them; returns how many there are. `evaluate` keeps and uses them.

    Raises InputError in one line for what cannot be evaluated, before any video is made.
    """
    ready = prepare(request)
    pipe = _load(request, ready, watch)
    _generate(pipe, request, ready, _sampling(pipe, request.adapter.card, request.settings), watch)
    return sum(len(row.videos) for rows in ready.plan.rows.values() for row in rows)


def evaluate(request: EvaluateRequest, watch: EvaluationWatch) -> EvaluationReport:
    """Evaluate an adapter and write what was found into `request.out`; a finished part is not done again.

    Raises InputError in one line for what cannot be evaluated, before any video is made.
    """
    begun = time.monotonic()
    ready = prepare(request)
    card = request.adapter.card
    own = {str(name): digest for name, digest in card.backbone.fingerprints.items()}
    held = held_out(request.adapter.folder, card.step, own)  # a log that cannot be read ends it early, too
    named = _named_extractors(request.settings, str(ready.loading.device))  # before the backbone: a missing one ends it early
    pipe = _load(request, ready, watch)
    extractors = [*named, *([BackboneFeatures(pipe)] if "tiny" in request.settings.features else [])]
    sampling = _sampling(pipe, card, request.settings)
    _generate(pipe, request, ready, sampling, watch)
    fep, drifted = _fep(pipe, request, ready, sampling, extractors, watch)
    for adapter in pipe.adapters.values():
        adapter.set_mode(Mode.BACKBONE_ONLY)  # as the backbone's own features want it, once instead of for each video
    found = measure(ready.plan.sweeps, other_axes(card), request.out, request.settings.fps, extractors, watch.note)
    report = EvaluationReport(
        adapter=str(request.adapter.folder),
        adapter_step=card.step,
        dataset_version=card.dataset_version,
        backbone=str(ready.loading.backbone),
        axes=tuple(axis.name for axis in ready.axes),
        laws={axis.name: axis.law.model_dump(mode="json") for axis in ready.axes},
        arms=tuple(arm.name for arm in ready.arms),
        main_arm=ready.main,
        settings=request.settings.model_dump(mode="json"),
        sampling=asdict(sampling),
        prompts=ready.prompts.by_axis,
        prompts_from=ready.prompts.source,
        extractors=tuple(extractor.name for extractor in extractors),
        probes_version=PROBES_VERSION,
        accuracy=found.accuracy,
        leakage=found.leakage,
        consistency=found.consistency,
        fep=fep,
        drift=drifted,
        svp=found.svp,
        flicker=found.flicker,
        sweeps=found.sweeps,
        published=PUBLISHED,
        notes=_notes(request, ready),
        validated=held,
        verdict=verdict(found.accuracy, found.leakage, fep, ready.main, held),
        versions=installed_versions(),
        wall_s=round(time.monotonic() - begun, 3),
    )
    write_atomic(request.out / FILE, checked(report))
    write_atomic(request.out / "results.md", results_text(report).encode())
    return report


def held_out(folder: Path, step: int, fingerprints: Mapping[str, str] | None = None) -> dict[str, Validated]:
    """Return what the training in whose folder an adapter lies found on held-out clips, by axis, up to the adapter's step.

    The log is that of the run whose result or checkpoint the adapter is, by the folders' names and, where `fingerprints` are
    given, by the backbone that the run's checkpoints record. Nothing where there is none, or the training did not validate.
    Raises DamagedError for a log that is none.
    """
    run = run_of(folder.resolve())
    if run is None or not (run / METRICS).is_file():
        return {}
    log, identity = run / METRICS, latest_identity(run)
    if identity is not None and any(identity.get(f"backbone {name}", own) != own for name, own in (fingerprints or {}).items()):
        return {}
    checks = [event for event in read_events(log) if event.kind == "validation" and event.step <= step]
    if not checks:
        return {}
    values, found = checks[-1].values, {}
    for name in values:
        loss, gap = values.get(f"loss/{name.removeprefix('gap/')}"), values[name]
        if name.startswith("gap/") and loss is not None and gap is not None:
            found[name.removeprefix("gap/")] = Validated(step=checks[-1].step, loss=loss, gap=gap)
    return found


def _load(request: EvaluateRequest, ready: Prepared, watch: EvaluationWatch) -> ControlledWan:
    watch.note(f"loading {ready.loading.backbone} ({ready.loading.dtype} on {ready.loading.device})")
    return load_controlled(request.adapter, ready.loading, cache=request.cache)


def _named_extractors(settings: EvaluateSettings, device: str) -> list[VideoFeatures]:
    kinds: dict[str, type[ClipFeatures] | type[XClipFeatures]] = {"clip": ClipFeatures, "xclip": XClipFeatures}
    found: list[VideoFeatures] = []
    for word in settings.features:
        kind, _, source = word.partition("=")
        if kind in kinds:
            found.append(kinds[kind](source, device) if source else kinds[kind](device=device))
    return found


def _sampling(pipe: ControlledWan, card: AdapterCard, settings: EvaluateSettings) -> Sampling:
    given = {name: getattr(settings, name) for name in [field.name for field in fields(Sampling)]}
    return replace(default_sampling(pipe, card), **{name: value for name, value in given.items() if value is not None})


def _generate(
    pipe: ControlledWan, request: EvaluateRequest, ready: Prepared, sampling: Sampling, watch: EvaluationWatch
) -> None:
    for folder, rows in ready.plan.rows.items():
        adapter = next(arm.adapter for arm in ready.arms if arm.folder == folder)
        wanted = Request(
            out=request.out / folder,
            adapter=adapter,
            rows=rows,
            sampling=sampling,
            fps=request.settings.fps,
            batch=request.settings.batch,
            replace_others=request.replace_others,
        )
        if adapter is request.adapter:
            make_videos(pipe, wanted, ready.loading, watch)
        else:
            with carrying(pipe, request.adapter, adapter, ready.loading):
                make_videos(pipe, wanted, ready.loading, watch)


def _fep(
    pipe: ControlledWan,
    request: EvaluateRequest,
    ready: Prepared,
    sampling: Sampling,
    extractors: Sequence[VideoFeatures],
    watch: EvaluationWatch,
) -> tuple[tuple[Fep, ...], Drift | None]:
    """Return FEP of every arm and the drift over training; nothing where they were not asked for."""
    backbone = next(arm for arm in ready.arms if arm.mode == Mode.BACKBONE_ONLY)
    if not request.settings.fep:
        return (), None
    watch.note(f"one denoising step: {len(ready.arms) + 1} arms of {len(ready.prompts.all) * request.settings.seeds} videos")
    fep_set = FepSet.of(ready.prompts.all, [axis.name for axis in pipe.axes], request.settings, sampling)
    features: dict[str, Mapping[str, Floats]] = {}
    for arm in ready.arms:
        if arm.adapter is request.adapter:
            features[arm.name] = fep_features(pipe, arm, fep_set, extractors)
        else:
            with carrying(pipe, request.adapter, arm.adapter, ready.loading):
                features[arm.name] = fep_features(pipe, arm, fep_set, extractors)
    features[NOISE_FLOOR] = fep_features(pipe, backbone, fep_set, extractors, shift=OTHER_NOISE)
    table = fast_table(features, backbone.name, extractors)
    if not request.drift:
        return table, None
    watch.note(f"drift over {len(request.drift)} sources")
    return table, drift(pipe, request.adapter, request.drift, fep_set, backbone, extractors[0], ready.loading)


def _notes(request: EvaluateRequest, ready: Prepared) -> tuple[str, ...]:
    """Return what a reader must know beside the numbers."""
    notes = [VQA_UNUSED if importlib.util.find_spec("t2v_metrics") is not None else NO_VQA]
    if request.settings.features == ("tiny",):
        notes.append("features are the backbone's own: they say how far apart two videos are to it, and nothing about words")
    fewest = min(len(prompts) for prompts in ready.prompts.by_axis.values())
    if fewest < MIN_PROMPTS:
        notes.append(f"{fewest} prompts are too few for intervals; they are left out")
    if request.settings.seeds < 2:
        notes.append("with one seed there is no spread over seeds; give --seeds 2 or more")
    if request.adapter_only is None:
        notes.append(f"the baseline {ADAPTER_ONLY} needs an adapter trained without LoRA; none was given")
    notes += [caveat for axis in ready.axes if axis.name in AXES and (caveat := AXES[axis.name].caveat)]
    if not request.settings.fep:
        notes.append("drift from the backbone in one step was left out")
    return tuple(notes)
