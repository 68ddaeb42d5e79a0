"""Runs the toy task in processes of their own, which may be killed: `python toy_run.py TRIALS.json`.

A trial is {"folder", "settings", "processes", "sharded", "die_at_step", "die_at_fsync", "stop_at_step",
"full_at"}. Each runs in a
fork, so that torch is imported once; the exit codes of all are printed as JSON.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from toy_task import Log, ToyTask, toy_settings

from scenes.errors import StopdownError
from trainer.config.train import TrainSettings
from trainer.training import loop as loop_module
from trainer.training.loop import Loop
from trainer.training.setup import make_accelerator
from trainer.training.tasks.base import TrainingProgress
from trainer.weights.full_disk import full_disk_in_words


class Sharding(Accelerator):
    """FSDP2 on CPUs, which accelerate itself offers on GPUs only: the same sharding and the same answers to the loop."""

    is_fsdp2 = True

    def prepare(self, module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> tuple[torch.nn.Module, Any]:
        """Shard the module over the processes and let the optimizer work on the shards."""
        mesh = init_device_mesh("cpu", (self.num_processes,))
        places = {id(parameter): name for name, parameter in module.named_parameters()}
        names = [places[id(parameter)] for parameter in optimizer.param_groups[0]["params"]]
        for part in (module.body, module.head, module):
            fully_shard(part, mesh=mesh)
        own = dict(module.named_parameters())
        optimizer.param_groups[0]["params"] = [own[name] for name in names]
        return module, AcceleratedOptimizer(optimizer)


class Fate:
    """A watcher that sends this process a signal after a step."""

    logs = True

    def __init__(self, step: int, number: int) -> None:
        self.step, self.number = step, number

    def started(self, task: Any, step: int, steps: int) -> None:
        """Wait for the step."""

    def stepped(self, task: Any, progress: TrainingProgress) -> None:
        """Send the signal."""
        torch.randn(7)  # a watcher that draws must change nothing
        if progress.step == self.step:
            os.kill(os.getpid(), self.number)

    def finished(self, task: Any, step: int) -> None:
        """Nothing is open."""


def die_at_fsync(number: int) -> None:
    """Kill this process at its `number`-th fsync: somewhere within the writing of a checkpoint."""
    calls = iter(range(1, 1_000_000))
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        real(descriptor)

    os.fsync = fsync


def no_room_at(what: str) -> None:
    """Let the first process find a full disk: at a checkpoint, a line of its log, or the result."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")

    owner, name = {"checkpoint": (loop_module, "write_checkpoint"), "log": (Log, "stepped"), "result": (ToyTask, "save")}[what]
    setattr(owner, name, full)


def run(trial: dict[str, Any]) -> None:
    """Run one trial to its end, or to its death; a full disk becomes a line, kept in the folder."""
    try:
        with full_disk_in_words(Path(trial["folder"]), "free some"):
            run_whole(trial)
    except StopdownError as error:
        (Path(trial["folder"]) / f"error-{os.environ.get('RANK', 0)}").write_text(str(error))
        os._exit(error.exit_code)


def run_whole(trial: dict[str, Any]) -> None:
    """Run one trial."""
    settings = TrainSettings.model_validate(trial["settings"])
    folder = Path(trial["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    accelerator = Sharding(cpu=True) if trial.get("sharded") else make_accelerator(settings)
    callbacks: list[Any] = [Log(folder / "log.jsonl")]
    if "die_at_step" in trial:
        callbacks.append(Fate(trial["die_at_step"], signal.SIGKILL))
    if "stop_at_step" in trial:
        callbacks.append(Fate(trial["stop_at_step"], signal.SIGTERM))
    if "die_at_fsync" in trial:
        die_at_fsync(trial["die_at_fsync"])
    if "full_at" in trial and accelerator.is_main_process:
        no_room_at(trial["full_at"])
    loop = Loop(ToyTask(settings), settings, folder, accelerator, identity={"seed": settings.seed}, callbacks=callbacks)
    loop.run()
    loop.save(folder / "result")


def run_in_fork(trial: dict[str, Any], rank: int, ranks: int, port: int) -> int:
    """Start a process for one trial; of several, each gets what torchrun and `accelerate launch` tell theirs."""
    child = os.fork()
    if child:
        return child
    if ranks > 1:
        told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_PORT": port}
        os.environ |= {name: str(value) for name, value in told.items()} | {"MASTER_ADDR": "127.0.0.1"}
    try:
        run(trial)
    except KeyboardInterrupt:
        os._exit(130)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main() -> None:
    """Run the trials of a file one after the other."""
    torch.set_num_threads(1)
    prepared = torch.nn.Linear(1, 1)
    make_accelerator(toy_settings()).prepare(prepared, torch.optim.SGD(prepared.parameters()))  # its imports take seconds
    AcceleratorState._reset_state(reset_partial_state=True)
    statuses = []
    for trial in json.loads(Path(sys.argv[1]).read_text()):
        ranks = trial.get("processes", 1)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        children = [run_in_fork(trial, rank, ranks, port) for rank in range(ranks)]
        codes = {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children}
        statuses.append(codes.pop() if len(codes) == 1 else sorted(codes))
    print(json.dumps(statuses))


if __name__ == "__main__":
    main()
