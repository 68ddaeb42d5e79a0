"""The stages of a run: build, verify, version, train, generate, evaluate, report.

Data is built and verified by the commands themselves, each in a process of its own, because this one must never load Blender;
the rest works in this process, and loads torch only when there is something to do.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generator.errors import DamagedError
from generator.versions.history.history import History
from scenes.control_axis import PROBES_VERSION
from scenes.errors import StopdownError
from trainer.config.train import TrainSettings, deciding_settings
from trainer.runs.before_rendering import check_before_rendering
from trainer.runs.child import run_command
from trainer.runs.run_recipe import RunRecipe
from trainer.runs.stage_runner import RunStage, StageRecord, digest_of, file_digests, read_state

Note = Callable[[str], None]
ADAPTER = Path("train") / "adapter"
EVALUATION = Path("evaluation")
REPORT = Path("report.html")


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """What every stage knows: the run's folder, its recipe, its dataset, and how to work."""

    folder: Path
    recipe_file: Path
    recipe: RunRecipe
    dataset: Path
    device: str
    workers: int | None
    note: Note
    cell: str | None = None  # of a comparison, which has set some of the recipe's overrides itself
    overrides: tuple[str, ...] | None = None  # those of the command line, where the recipe has more

    @property
    def repeated_by(self) -> str:
        """The command that makes such a run again, in a folder of its own; a comparison's cell in the same one."""
        root = self.folder.parent.parent
        words = ["stopdown", "run", str(self.recipe_file)]
        words += ["--new"] if self.cell is None else ["--cell", self.cell, "--from", "build"]
        words += [] if root == Path("runs") else ["--out", str(root)]
        if self.cell is None:
            usual, given = Path("datasets") / self.recipe.dataset.name, self.dataset
        else:
            usual, given = Path("datasets"), self.dataset.parent
        words += [] if given == usual else ["--dataset", str(given)]
        words += [] if self.device == "auto" else ["--device", self.device]
        return shlex.join([*words, *(word for override in self._told for word in ("--set", override))])

    @property
    def _told(self) -> tuple[str, ...]:
        return self.recipe.overrides if self.overrides is None else self.overrides

    @property
    def tag(self) -> str:
        """The tag that keeps the run's version from gc."""
        return f"run-{self.recipe.dataset.name}-{self.folder.name}"

    @property
    def version_id(self) -> str:
        """The dataset version of the run, by its tag; raises DamagedError where there is none."""
        try:
            return History.open(self.dataset).version(self.tag).id
        except StopdownError as error:
            raise DamagedError(str(error)) from error

    def train_settings(self) -> TrainSettings:
        """Return the settings of the training stage."""
        settings = self.recipe.train(self.dataset, self.version_id, self.folder / "train")
        return settings if self.device == "auto" else settings.model_copy(update={"device": self.device})


@dataclass(frozen=True)
class Build:
    """Renders what the plan lacks and commits it."""

    context: RunContext
    name: str = "build"

    def inputs(self, earlier: Mapping[str, StageRecord]) -> Mapping[str, str]:
        """Depend on the plan and on how probes read."""
        return {"plan": self.context.recipe.plan().digest, "probes": str(PROBES_VERSION), "dataset": str(self.context.dataset)}

    def made(self) -> Mapping[str, str]:
        """Name the version whose plan is the recipe's, wherever the working folder stands.

        Raises DamagedError where the dataset has no version of the plan.
        """
        digest = self.context.recipe.plan().digest
        try:
            found = next((v for v in History.open(self.context.dataset).log() if v.plans == (digest,)), None)
        except StopdownError as error:
            raise DamagedError(str(error)) from error
        if found is None:
            raise DamagedError(f"{self.context.dataset} has no version of plan {digest[:12]}")
        return {"version": found.id}

    def run(self) -> Mapping[str, Any]:
        """Build, as the command does; refuses first what later stages are bound to refuse."""
        check_before_rendering(self.context.recipe, self.context.dataset)
        workers = [] if self.context.workers is None else ["--workers", str(self.context.workers)]
        overrides = [word for override in self.context.recipe.overrides for word in ("--set", override)]
        file = str(self.context.recipe_file)  # a .blend that it names lies beside it
        message = f"run {self.context.folder.name} of {self.context.recipe.dataset.name}"
        run_command(["build", file, "--out", str(self.context.dataset), "--message", message, *workers, *overrides])
        summary = History.open(self.context.dataset).version(self.made()["version"]).summary
        return {"clips": summary.clips, "scenes": summary.scenes, "bytes": summary.size_bytes}


@dataclass(frozen=True)
class Verify:
    """Proves every label of the dataset; a run goes no further where one fails."""

    context: RunContext
    name: str = "verify"

    def inputs(self, earlier: Mapping[str, StageRecord]) -> Mapping[str, str]:
        """Depend on the version and the tolerances."""
        bars = digest_of(self.context.recipe.dataset.verify.model_dump(mode="json"))
        return {"version": earlier["build"].made["version"], "tolerances": bars, "probes": str(PROBES_VERSION)}

    def made(self) -> Mapping[str, str]:
        """Name the report and its plot."""
        return file_digests(self.context.folder, [self.context.folder / "verify.json", self.context.folder / "verify.png"])

    def run(self) -> Mapping[str, Any]:
        """Verify, as the command does."""
        report = self.context.folder / "verify.json"
        plot = self.context.folder / "verify.png"
        workers = [] if self.context.workers is None else ["--workers", str(self.context.workers)]
        run_command(["verify", str(self.context.dataset), "--json", "--plot", str(plot), *workers], stdout=report)
        axes = json.loads(report.read_text())["axes"]
        return {f"{axis['axis']} median error": axis["median_error"] for axis in axes}


@dataclass(frozen=True)
class Freeze:
    """Tags the version, so that nothing removes it while the run is kept."""

    context: RunContext
    name: str = "version"

    def inputs(self, earlier: Mapping[str, StageRecord]) -> Mapping[str, str]:
        """Depend on what was built and verified."""
        return {"version": earlier["build"].made["version"], "verify": digest_of(earlier["verify"].made)}

    def made(self) -> Mapping[str, str]:
        """Name the tagged version."""
        return {"version": self.context.version_id}

    def run(self) -> Mapping[str, Any]:
        """Put the run's tag on the version of its plan."""
        version_id = Build(self.context).made()["version"]
        History.open(self.context.dataset).tag(self.context.tag, version_id, move=True)
        return {"version": version_id[:12], "tag": self.context.tag}


@dataclass(frozen=True)
class Train:
    """Fits the adapter; goes on from its last checkpoint."""

    context: RunContext
    name: str = "train"

    def inputs(self, earlier: Mapping[str, StageRecord]) -> Mapping[str, str]:
        """Depend on the version, and on the settings that decide weights or what is logged beside them."""
        settings = self.context.recipe.train(
            self.context.dataset, earlier["version"].made["version"], self.context.folder / "train"
        )
        beside = settings.model_dump(mode="json", include={"validation", "previews", "trackers"})
        return {
            **_given(settings, self.context.folder / "train"),
            "version": earlier["version"].made["version"],
            "settings": digest_of({**deciding_settings(settings), "steps": settings.steps}),
            "beside": digest_of(beside),
        }

    def made(self) -> Mapping[str, str]:
        """Name the adapter's files."""
        return adapter_files(self.context.folder)

    def run(self) -> Mapping[str, Any]:
        """Train, as the command does."""
        from generator.console.terminal import Console
        from trainer.training.callbacks.metrics import read_events
        from trainer.training.session import run_training
        from trainer.training.setup import make_accelerator, open_run

        settings, folder = self.context.train_settings(), self.context.folder / "train"
        clear_other_run(settings, folder, self.context.note)
        accelerator = make_accelerator(settings)
        opened = open_run(settings, accelerator.device, folder=folder)
        for words in (*opened.data.notes, *opened.notes):
            self.context.note(words)
        step = run_training(opened, folder, accelerator, Console(stderr=True, highlight=False))
        losses = [event.values.get("loss") for event in read_events(folder / "metrics.jsonl") if event.kind == "train"]
        last = [loss for loss in losses[-20:] if loss is not None]
        return {"steps": step, "loss": sum(last) / len(last) if last else None}


@dataclass(frozen=True)
class Generate:
    """Makes the sweeps that are to be judged."""

    context: RunContext
    name: str = "generate"

    def inputs(self, earlier: Mapping[str, StageRecord]) -> Mapping[str, str]:
        """Depend on the adapter and on what to sweep."""
        settings = self.context.recipe.evaluate.model_dump(mode="json", exclude={"features", "fep"})
        return {"adapter": digest_of(earlier["train"].made), "settings": digest_of(settings)}

    def made(self) -> Mapping[str, str]:
        """Name the videos. Raises DamagedError where videos are missing."""
        root = self.context.folder / EVALUATION
        videos = sorted(root.glob("videos*/**/*.mp4"))
        if not videos:
            raise DamagedError(f"{root} holds no videos")
        return {"videos": digest_of(file_digests(root, videos))}

    def run(self) -> Mapping[str, Any]:
        """Make what is missing."""
        from trainer.evaluation.run import generate_videos

        videos = _watched(lambda watch: generate_videos(evaluate_request(self.context), watch))
        return {"videos": videos}


@dataclass(frozen=True)
class Evaluate:
    """Reads the sweeps with the probes and compares the arms."""

    context: RunContext
    name: str = "evaluate"

    def inputs(self, earlier: Mapping[str, StageRecord]) -> Mapping[str, str]:
        """Depend on the adapter, the videos, the settings and the probes."""
        settings = self.context.recipe.evaluate.model_dump(mode="json", by_alias=True)
        return {
            "adapter": digest_of(earlier["train"].made),
            "videos": digest_of(earlier["generate"].made),
            "settings": digest_of(settings),
            "probes": str(PROBES_VERSION),
        }

    def made(self) -> Mapping[str, str]:
        """Name the report's numbers."""
        return file_digests(self.context.folder, [self.context.folder / EVALUATION / "report.json"])

    def run(self) -> Mapping[str, Any]:
        """Evaluate; videos that are there are kept."""
        from trainer.evaluation.run import evaluate

        report = _watched(lambda watch: evaluate(evaluate_request(self.context), watch))
        found: dict[str, float | None] = {}
        for one in report.accuracy:
            if one.arm == report.main_arm:
                found |= {f"{one.axis} rho": one.rho.value, f"{one.axis} median error ({one.unit})": one.median_error.value}
        return found


@dataclass(frozen=True)
class WriteReport:
    """Writes the report, and the results into the adapter's model card."""

    context: RunContext
    name: str = "report"

    def inputs(self, earlier: Mapping[str, StageRecord]) -> Mapping[str, str]:
        """Depend on everything before."""
        return {name: digest_of(record.made) for name, record in earlier.items()}

    def made(self) -> Mapping[str, str]:
        """Name the page."""
        return file_digests(self.context.folder, [self.context.folder / REPORT])

    def run(self) -> Mapping[str, Any]:
        """Write the page."""
        from trainer.evaluation.results import read_report
        from trainer.evaluation.results_markdown import put_on_card
        from trainer.report import ReportParts, write_report

        folder, recipe = self.context.folder, self.context.recipe
        done = read_state(folder).stages
        parts = ReportParts(
            title=f"{recipe.dataset.name}, run {folder.name}",
            evaluation=folder / EVALUATION,
            training=folder / "train",
            dataset=self.context.dataset,
            recipe=recipe.text,
            command=self.context.repeated_by,
            facts={"dataset version": self.context.version_id, "seed": str(recipe.dataset.seed), "folder": str(folder)},
            stages=tuple((name, record.wall_s) for name, record in done.items() if name != self.name),
        )
        write_report(parts, folder / REPORT)
        put_on_card(folder / ADAPTER, read_report(folder / EVALUATION))
        return {"bytes": (folder / REPORT).stat().st_size}


STAGES = (Build, Verify, Freeze, Train, Generate, Evaluate, WriteReport)


def make_stages(context: RunContext) -> Sequence[RunStage]:
    """Return the stages of a run, in order."""
    return tuple(kind(context) for kind in STAGES)


def adapter_files(folder: Path) -> dict[str, str]:
    """Return the digests of a run's adapter; raises DamagedError where there is none."""
    files = sorted(path for path in (folder / ADAPTER).rglob("*") if path.is_file() and path.name != "README.md")
    if not files:
        raise DamagedError(f"{folder / ADAPTER} holds no adapter")
    return file_digests(folder, files)


def clear_other_run(settings: TrainSettings, folder: Path, note: Note) -> None:
    """Put checkpoints of other settings or another version aside, because a stage that changed starts anew."""
    from trainer.training.checkpoints.checkpoint import latest_identity

    before = latest_identity(folder)
    if before is None:
        return
    now = {name: value for name, value in deciding_settings(settings).items() if name != "adapter.axes"}
    now |= {"dataset version": settings.ref, "from": _given(settings, folder).get("from")}
    if all(before.get(name) == value for name, value in now.items()):
        return
    number = 1 + sum(1 for path in folder.parent.glob(f"{folder.name}-before-*"))
    kept = folder.with_name(f"{folder.name}-before-{number}")
    folder.rename(kept)
    note(f"what was trained with other settings is kept in {kept}")


def _given(settings: TrainSettings, folder: Path) -> dict[str, str]:
    """Return the hash of the weights that the training in a folder starts from, where it is given some."""
    from trainer.training.given import find_given

    return {} if settings.start_from is None else {"from": find_given(settings.start_from, folder).digest}


def evaluate_request(context: RunContext) -> Any:
    """Return what to evaluate: the run's adapter, on captions of held-out scenes where the recipe has no prompts."""
    from trainer.adapters.saved import SavedAdapter
    from trainer.evaluation.run import EvaluateRequest
    from trainer.generation.load_pipeline import Loading

    settings = context.recipe.evaluate
    return EvaluateRequest(
        adapter=SavedAdapter.open(context.folder / ADAPTER),
        out=context.folder / EVALUATION,
        settings=settings,
        dataset=None if settings.has_prompts else context.dataset,
        ref=context.tag,
        drift=(context.folder / "train",) if settings.fep else (),
        replace_others=True,  # the run's own folder: what another adapter or other settings made there is out of date
        loading=Loading() if context.device == "auto" else Loading(device=context.device),
    )


def _watched(work: Callable[[Any], Any]) -> Any:
    import sys

    from trainer.generation.video_progress import GenerateProgress

    with GenerateProgress(sys.stderr) as watch:
        return work(watch)
