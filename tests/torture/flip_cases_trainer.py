"""What the trainer keeps and reads again, whose bits are flipped: adapters, checkpoints, caches, logs, records, runs."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from flips import Reader

from scenes.errors import InputError


@contextmanager
def heard() -> Iterator[list[str]]:
    """Yield the warnings that the trainer gives."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("stopdown")
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


def an_adapter(path: Path) -> None:
    """Save an adapter."""
    from torch_work import save

    save([str(path / "a"), "3", "0"])


def attached(folder: Path) -> tuple[Hashable, bool]:
    """Attach the adapter, and return what it then is, its card and all parameters."""
    from trainer_support import tiny_transformer

    from trainer.adapters.folder import attach_saved
    from trainer.adapters.saved import SavedAdapter

    saved = SavedAdapter.open(folder / "a")
    adapters = attach_saved({"transformer": tiny_transformer()}, saved)
    parameters = {name: tensor.detach().numpy().tobytes() for name, tensor in adapters["transformer"].parameters().items()}
    return (saved.card.model_dump_json(), tuple(sorted(parameters.items()))), False


def a_training(path: Path) -> None:
    """Train, with two checkpoints kept."""
    from torch_work import train

    train([str(path / "run")])


def not_a_checkpoint(path: Path) -> bool:
    return not any(part.startswith("checkpoint-") for part in path.parts)


def trained_on(folder: Path) -> tuple[Hashable, bool]:
    """Train the same run on from its checkpoints, and return the weights that it ends with and the number of its steps."""
    from torch_work import train

    with heard() as said:
        train([str(folder / "run")])
    result = folder / "run" / "result"
    weights = hashlib.sha256((result / "weights.safetensors").read_bytes()).hexdigest()
    return (weights, (result / "step.json").read_text()), bool(said)


def a_cache(path: Path) -> None:
    """Keep tensors of several types and shapes."""
    cache, tensors = _cache(path)
    for key, tensor in tensors.items():
        cache.write(key, tensor)


def _cache(path: Path):  # type: ignore[no-untyped-def]  # torch is imported where it is needed
    import torch

    from trainer.data.cache import TensorCache, cache_key

    shapes = ((4, 2, 3), (7,), (1, 5))
    types = (torch.float32, torch.bfloat16, torch.int64)
    kept = zip(shapes, types, strict=True)
    tensors = {
        cache_key({"number": n}): torch.arange(1000)[n:][: torch.Size(s).numel()].reshape(s).to(t)
        for n, (s, t) in enumerate(kept)
    }
    return TensorCache(path / "cache"), tensors


def cached(folder: Path) -> tuple[Hashable, bool]:
    """Ask for every tensor, computing it anew where it is not verified."""
    cache, tensors = _cache(folder)
    with heard() as said:
        found = [(key, cache.remember(key, lambda tensor=tensor: tensor)) for key, tensor in tensors.items()]  # type: ignore[misc]
    return tuple((key, str(t.dtype), tuple(t.shape), tuple(t.flatten().tolist())) for key, t in found), bool(said)


def a_run(path: Path) -> None:
    """Go through the stages of a run."""
    from torch_work import stages

    stages([str(path / "run")])


def run_on(folder: Path) -> tuple[Hashable, bool]:
    """Go through them again, and return what the run then says of itself."""
    from torch_work import told_stages

    from trainer.runs.side_by_side import summarise
    from trainer.runs.stage_runner import read_state

    settings = summarise(folder / "run").settings  # as `stopdown runs` does, before the next run writes some files anew
    said = told_stages(folder / "run")
    state = read_state(folder / "run").stages
    summaries = json.dumps({name: record.model_dump(exclude={"wall_s"}) for name, record in state.items()})
    return (summaries, repr(settings)), said


def an_evaluation(path: Path) -> None:
    """Measure drawn videos, log a training, and write a video with its record."""
    from evaluation_support import report_of, synthetic

    from generator.io.checked_model import checked
    from trainer.control import axis_control
    from trainer.evaluation.results import FILE
    from trainer.training.callbacks.metrics import FILE as LOG
    from trainer.training.callbacks.metrics import Event, MetricsFile

    folder = path / "evaluation"
    folder.mkdir()
    plan, measured = synthetic(folder, ["temperature"], 1, controls="-1,0,1")
    (folder / FILE).write_bytes(checked(report_of(plan, measured, [axis_control("temperature")])))
    log = MetricsFile(path / LOG)
    log.open(0, 4)
    for step in range(1, 5):
        log.write(Event(step=step, kind="train", values={"loss": 1 / step, "rate": None}, machine={"speed": 2.0 + step}))
        log.write(Event(step=step, kind="validation", values={"loss": 1.5 / step, "gap/temperature": 0.1}))
    log.close()
    _video(path, write=True)


def _video(path: Path, *, write: bool = False) -> str:
    """Return what lies in a folder in the place of a video, which is written there first if asked."""
    from trainer.generation.record import recipe_digest, state_of, write_video

    recipe = {"prompt": "a red ball", "seed": 3, "sampling": {"steps": 2, "guidance": 5.5}}
    if write:
        frames_THW3 = np.random.default_rng(0).integers(0, 255, (5, 32, 32, 3), dtype=np.uint8)
        write_video(path, cast(Any, SimpleNamespace(name="v")), recipe, frames_THW3, 16)
    return state_of(path, "v", recipe_digest(recipe)).name


def looked_at(folder: Path) -> tuple[Hashable, bool]:
    """Read the log, the report and the video, and measure the drawn videos again, which were read before."""
    from evaluation_support import synthetic

    from trainer.evaluation.results import read_report
    from trainer.training.callbacks.metrics import FILE as LOG
    from trainer.training.callbacks.metrics import read_events

    with heard() as said:
        events, report = read_events(folder / LOG), read_report(folder / "evaluation")
        measured = synthetic(folder / "evaluation", ["temperature"], 1, controls="-1,0,1")[1]
    if _video(folder) != "FINISHED":
        raise InputError("the video is not the one asked for")
    return (repr(events), repr(report), repr(measured)), bool(said)


def a_whole_run(path: Path) -> None:
    """Do a micro run."""
    from kill_cases_trainer import ran, run_recipe

    run_recipe(path)
    ran(path)


def run_again(folder: Path) -> tuple[Hashable, bool]:
    """Run it again: what is there is kept, or said and made anew."""
    from kill_cases_trainer import RUN, run_outcome
    from run_support import Started

    with tempfile.TemporaryDirectory() as beside:
        started = Started(folder, folder / "cache", *RUN, log=Path(beside) / "said.log")
        code, said = started.end(), started.said
    if code:
        assert code == 2 and "Traceback" not in said, said
        raise InputError(said)
    return json.dumps(run_outcome(folder), sort_keys=True), "damaged" in said or "begins" in said


READERS = [
    Reader(name="adapter", prepare=an_adapter, read=attached, skip=lambda path: path.name == "README.md"),
    Reader(
        name="checkpoints",
        prepare=a_training,
        read=trained_on,
        skip=not_a_checkpoint,
        copied=True,
    ),
    Reader(name="training cache", prepare=a_cache, read=cached, copied=True),
    Reader(name="run folder", prepare=a_run, read=run_on, skip=lambda path: path.parts[0] != "run", copied=True),
    Reader(
        name="logs and records",
        prepare=an_evaluation,
        read=looked_at,
        skip=lambda path: path.suffix == ".mp4" and path.name != "v.mp4",
        copied=True,
        long_only=True,
    ),
    Reader(
        name="whole run",
        prepare=a_whole_run,
        read=run_again,
        skip=lambda path: path.parts[0] != "runs" or path.name == ".lock",
        partial=True,  # what a finished run left and no stage reads again, such as videos' records and checkpoints
        copied=True,
        long_only=True,
        most=60,
    ),
]
