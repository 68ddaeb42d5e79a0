"""Starts `stopdown` in processes that have torch loaded already, so that a test may start and kill many of them.

They are forked from a server that imports everything and does nothing else, so that they are as fresh as a new process.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

RECIPE = """
name = "micro"
seed = 3

[video]
width = 64
height = 64

[[pyramid]]
axes = ["temperature"]
family = ["tabletop"]
layers = [3]
scenes_per_layer = 1
frames = [5]

[train]
steps = 2
batch_size = 2
accumulation = 1
seed = 1
precision = "no"
trackers = []

[train.backbone]
name = "tiny-random"
dtype = "float32"
text_max_length = 16

[train.checkpoints]
every = 1

[train.validation]
every = 0

[evaluate]
prompts = ["a red cube stands on a grey tabletop"]
controls = "-1,1"
modes = ["decoupled", "backbone_only"]
text_baseline = false
features = ["tiny"]
fep = false
frames = 5
width = 32
height = 32
steps = 1
guidance = 1.0
text_tokens = 16
"""
TIMEOUT_S = 600.0  # a busy machine is slow and not broken
LOADED = [
    "stopdown",
    "trainer.commands.run",
    "trainer.evaluation.run",
    "trainer.report",
    "trainer.comparison.comparison_page",
    "trainer.comparison.grid_runs",
    "trainer.training.session",
    "trainer.training.setup",
]
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(LOADED)


class Started:
    """A `stopdown` with a folder to work in, and what it says."""

    def __init__(self, root: Path, cache: Path, *words: str, hold: str | None = None, log: Path | None = None) -> None:
        self.log = root / f"said-{time.monotonic_ns()}.log" if log is None else log
        self.log.touch()
        self.process: ForkServerProcess = FORKED.Process(
            target=_stopdown, args=(str(root), str(cache), str(self.log), words, hold)
        )
        self.process.start()

    @property
    def said(self) -> str:
        """Everything that it has said so far."""
        return self.log.read_text()

    def end(self) -> int:
        """Wait for its end and return its exit code."""
        self.process.join(TIMEOUT_S)
        assert self.process.exitcode is not None, f"still at work after {TIMEOUT_S} s:\n{self.said}"
        return self.process.exitcode

    def kill_when(self, mark: Callable[[], bool]) -> None:
        """Kill it once a mark is seen."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while self.process.is_alive() and not mark():
            assert time.monotonic() < deadline_s, f"nothing to see after {TIMEOUT_S} s:\n{self.said}"
            time.sleep(0.005)
        self.process.kill()
        assert self.end() < 0, f"it ended before it was killed:\n{self.said}"


def finished(root: Path, cache: Path, *words: str, code: int = 0) -> str:
    """Run `stopdown` to its end, hold its exit code against `code`, and return what it said."""
    started = Started(root, cache, *words)
    ended = started.end()
    said = started.said
    started.log.unlink()
    assert ended == code, said
    return said


def _hold(stage: str) -> None:
    """Let a run wait for its death before it counts a stage as done."""
    from trainer.runs import stage_runner as stages

    real, parent = stages.write_atomic, os.getppid()

    def write_atomic(path: Path, data: bytes) -> None:
        if path.name == stages.STATE and stage in json.loads(data)["stages"]:
            while os.getppid() == parent:
                time.sleep(0.01)
        real(path, data)

    stages.write_atomic = write_atomic


def _stopdown(root: str, cache: str, log: str, words: tuple[str, ...], hold: str | None) -> None:
    """Be `stopdown WORDS` in a folder, saying everything to a file; `hold` names a stage of a run not to come to its end."""
    if hold is not None:
        _hold(hold)
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(root)
    os.environ |= {"XDG_CACHE_HOME": cache, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    import torch

    torch.set_num_threads(1)
    sys.argv = ["stopdown", *words]
    from stopdown import main

    main()
