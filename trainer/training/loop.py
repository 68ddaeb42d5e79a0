"""The training loop, over any `Task`, under accelerate: alone, or on several processes (DDP, FSDP2) by `accelerate launch`.

A run is a function of its settings. Micro-batch k of process r is batch number k * processes + r; the draws of its loss come
from a generator seeded by that number; the learning rate, the ramp and the average's decay follow from the step. So a run that
goes on from a checkpoint repeats an uninterrupted one, bit for bit on a CPU.

Shapes: B the clips of a micro-batch.
"""

from __future__ import annotations

import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, gather_object
from torch import Tensor, nn

from generator.io.atomic import share
from scenes.errors import StopdownError
from trainer.config.train import TrainSettings, require_same
from trainer.data.batch import Batch
from trainer.training.block_swap import swap_blocks
from trainer.training.callbacks.surviving import surviving
from trainer.training.checkpoints.checkpoint import (
    Checkpoint,
    checkpoint_path,
    read_latest,
    report_damaged,
    tidy,
    write_checkpoint,
)
from trainer.training.checkpoints.saving import Clock, wait_for_room
from trainer.training.ema import start_average, update_average
from trainer.training.guard import Guard, diverged, memory_in_words
from trainer.training.interrupt import Interrupt
from trainer.training.loop_settings import LoopSettings
from trainer.training.sharding import gathered, sharded_like, whole
from trainer.training.tasks.base import Callback, Task, TrainingProgress
from trainer.training.tasks.flow import Experts
from trainer.training.together import first_does
from trainer.weights.strict import check_exact

SPEED_WINDOW = 20  # steps
ADVICE = (
    "lower the clips' size or frame count, batch_size or adapter.rank, set gradient_checkpointing = true, "
    "pack the backbone with backbone.quantization = 'fp8' or 'nf4', or let blocks wait in main memory with "
    "backbone.blocks_to_swap (--dry-run says how many)"
)


@dataclass(frozen=True, kw_only=True)
class Micro:
    """What is remembered of a micro-batch until the step is judged."""

    clip_ids: tuple[str, ...]
    losses_B: Tensor


class Loop:
    """One run: `Loop(task, settings, folder, accelerator).run()`.

    `identity` is all that decides the run, flat (settings, clips, backbone); checkpoints in `folder` must have the same.
    `callbacks` are told on the first process; `watch` adds more. `best` gives the steps whose checkpoints must stay.
    """

    def __init__(
        self,
        task: Task,
        settings: TrainSettings | LoopSettings,
        folder: Path,
        accelerator: Accelerator,
        *,
        identity: Mapping[str, Any] | None = None,
        callbacks: Sequence[Callback] = (),
        best: Callable[[], Collection[int]] = tuple,
    ) -> None:
        self.task = task
        self.settings = settings if isinstance(settings, LoopSettings) else LoopSettings.of(settings)
        self.folder = folder
        self.accelerator = accelerator
        self.identity = {**(identity or {}), "processes": accelerator.num_processes}
        self.callbacks = tuple(callbacks) if accelerator.is_main_process else ()
        self.best = best
        self.clock = Clock(self.settings.checkpoints.minutes)
        self.step = 0
        self.interrupted = False  # asked to stop, be it after the last step
        self.guard = Guard(self.settings.max_loss_factor)
        self._made = 0  # by this process
        self._failure: Exception | None = None  # of the first process's log, until all know
        self._durations: deque[float] = deque(maxlen=SPEED_WINDOW)
        with memory_in_words(ADVICE):
            self._prepare()

    def watch(self, *callbacks: Callback) -> None:
        """Add callbacks, such as ones that need this loop's averaged weights; only the first process keeps them."""
        self.callbacks += callbacks if self.accelerator.is_main_process else ()

    def _prepare(self) -> None:
        module, own = self.task.module, self.task.parameters()
        paths = {id(parameter): path for path, parameter in module.named_parameters() if parameter.requires_grad}
        if {id(parameter) for parameter in own.values()} != set(paths):
            raise StopdownError(f"task {self.task.name}: its parameters() are not those of its module that require gradients")
        if self.settings.compile:
            compile_blocks(module)
        if isinstance(module, Experts):  # a batch reaches the expert of its noise level, which may be one of the two
            self.accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=True)
        swapped = self.settings.blocks_to_swap
        if swapped:
            swap_blocks(module, swapped, self.accelerator.device)
        optimizer = self.settings.make_optimizer(own)
        self._full_rates = [group["lr"] for group in optimizer.param_groups]
        placed = {"device_placement": [False, True]} if swapped else {}  # the module is where it belongs
        self.module, prepared = self.accelerator.prepare(module, optimizer, **placed)
        self.optimizer: torch.optim.Optimizer = prepared.optimizer
        by_path = dict(self.accelerator.unwrap_model(self.module).named_parameters())  # FSDP puts new ones in their place
        self.parameters: dict[str, nn.Parameter] = {name: by_path[paths[id(parameter)]] for name, parameter in own.items()}
        self.average = start_average(self.parameters) if self.settings.ema_decay else None

    def run(self) -> int:
        """Train from the last checkpoint, or from the start, to the last step; returns the step reached, which is saved.

        Raises DivergedError before a step that would spoil the weights, InputError for checkpoints of another run, a
        StopdownError that says what to lower when memory is full, and KeyboardInterrupt, with a checkpoint written, when asked
        to stop.
        """
        first_does(self.accelerator, lambda _still: self.folder.mkdir(parents=True, exist_ok=True))
        self._resume()
        self.clock = Clock(self.settings.checkpoints.minutes)  # from here on there is work to lose
        try:
            first_does(self.accelerator, lambda _still: self._start_watchers())
            with Interrupt() as interrupt, memory_in_words(ADVICE):
                while self.step < self.settings.steps:
                    self._go_on(interrupt)
            self.interrupted = interrupt.asked
        finally:
            for watcher in self.callbacks:
                with surviving("closing what watched the run"):
                    watcher.finished(self.task, self.step)
        return self.step

    def _go_on(self, interrupt: Interrupt) -> None:
        """Make a step, log it, write the checkpoint that is due, and only then let what may fail look at the weights."""
        progress, stop, late = self._make_step(interrupt)
        self._log(progress)
        last = self.step == self.settings.steps
        scheduled = last or self.step % self.settings.checkpoints.every == 0
        if stop or late or scheduled:
            self._write(interrupt, scheduled=scheduled)
        if stop and not last:
            raise KeyboardInterrupt
        for watcher in self.callbacks:
            if not watcher.logs:
                with surviving(f"what watches step {self.step} ({type(watcher).__name__})"):
                    watcher.stepped(self.task, progress)

    def _start_watchers(self) -> None:
        for watcher in self.callbacks:
            watcher.started(self.task, self.step, self.settings.steps)
        if self.step:
            tidy(self.folder, self.step, self.settings.checkpoints.keep, best=self.best())

    def _log(self, progress: TrainingProgress) -> None:
        """Tell the callbacks that log; of several processes, a failure ends all of them at their next common point."""
        try:
            for watcher in self.callbacks:
                if watcher.logs:
                    watcher.stepped(self.task, progress)
        except Exception as error:
            if self.accelerator.num_processes == 1:
                raise
            self._failure = error

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def save(self, folder: Path) -> None:
        """Write what a user takes away, averaged where the settings say so; all processes must call it."""
        averaged = None if self.average is None else _on_cpu(self.average)

        def write(_still: Callable[[], None]) -> None:
            self.task.save(folder, self.step, averaged)
            share(folder)

        with gathered(self.module):
            first_does(self.accelerator, write)

    def _make_step(self, interrupt: Interrupt) -> tuple[TrainingProgress, bool, bool]:
        """Make one optimizer step; returns what came of it, whether to stop, and whether a checkpoint is due by time."""
        began = time.perf_counter()
        step = self.step
        rates = [self.settings.rate(full, step) for full in self._full_rates]
        self.task.before_step(step)
        self.optimizer.zero_grad(set_to_none=True)
        micros = [self._accumulate(step * self.settings.accumulation + k) for k in range(self.settings.accumulation)]
        loss, clips, stop, late = self._summed(micros, interrupt.asked)
        norm = self._gradient_norm(clips)
        fault = self.guard.fault(loss, norm)
        if fault is not None:
            raise diverged(step + 1, fault, self._clip_losses(micros), self._last_checkpoint())
        self._clip(norm)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self.optimizer.step()
        self.step += 1
        self.guard.passed(loss)
        if self.average is not None:
            update_average(self.average, self.parameters, self.settings.ema_decay, self.step)
        if self._made == 1:
            self._durations.clear()  # the first step compiles and allocates
        self._durations.append(time.perf_counter() - began)
        self._made += 1
        return self._progress(loss, rates[0], norm, tuple(self._clip_ids(micros))), stop, late

    def _accumulate(self, micro_step: int) -> Micro:
        """Add one micro-batch's share to the gradient."""
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        batch: Batch = self.task.micro_batch(micro_step, rank, ranks)
        seed = draw_seed(self.settings.seed, micro_step * ranks + rank)
        torch.manual_seed(seed)  # for a task that draws without its generator, as dropout does; it must not depend on the past
        last = micro_step % self.settings.accumulation == self.settings.accumulation - 1
        with nullcontext() if last else self.accelerator.no_sync(self.module):
            losses_B = self.task.losses(batch, torch.Generator().manual_seed(seed), self.module)
            (losses_B.sum() / self._clips_a_process).backward()
        return Micro(clip_ids=batch.clip_ids, losses_B=losses_B.detach())

    @property
    def _clips_a_process(self) -> int:
        return self.settings.batch_size * self.settings.accumulation

    def _summed(self, micros: Sequence[Micro], asked: bool) -> tuple[float, int, bool, bool]:
        """Return the mean loss over all clips of all processes, their number, and what all of them must agree on.

        That is whether any process was asked to stop, and whether the first one's clock says that a checkpoint is due.
        """
        losses = torch.cat([micro.losses_B for micro in micros]).double()
        late = self.accelerator.is_main_process and self.clock.due(self._durations[-1] if self._durations else 0.0)
        said = losses.new_tensor([float(len(losses)), float(asked), float(late), float(self._failure is not None)])
        mine = torch.cat([losses.sum()[None], said])
        total, clips, stops, lates, failures = self.accelerator.reduce(mine, reduction="sum").tolist()
        if failures:
            first_does(self.accelerator, lambda _still: self._raise_failure())
        return total / clips, int(clips), stops > 0, lates > 0

    @torch.no_grad()
    def _gradient_norm(self, clips: int) -> float:
        """Make the gradient the mean over the clips there were (batches may fall short), and return its norm."""
        gradients = [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]
        if not gradients:
            raise StopdownError(f"task {self.task.name}: no parameter received a gradient")
        expected = self._clips_a_process * self.accelerator.num_processes
        if clips != expected:
            torch._foreach_mul_(gradients, expected / clips)
        return float(whole(torch.nn.utils.get_total_norm(gradients)))

    def _clip(self, norm: float) -> None:
        limit = self.settings.clip_norm
        if limit and norm > limit:
            torch._foreach_mul_([p.grad for p in self.parameters.values() if p.grad is not None], limit / norm)

    def _clip_ids(self, micros: Sequence[Micro]) -> list[str]:
        return self._gathered([clip for micro in micros for clip in micro.clip_ids])

    def _clip_losses(self, micros: Sequence[Micro]) -> dict[str, float]:
        pairs = [pair for micro in micros for pair in zip(micro.clip_ids, micro.losses_B.tolist(), strict=True)]
        return dict(self._gathered(pairs))

    def _gathered(self, mine: list[Any]) -> list[Any]:
        return gather_object(mine) if self.accelerator.num_processes > 1 else mine

    def _progress(self, loss: float, rate: float, norm: float, clip_ids: tuple[str, ...]) -> TrainingProgress:
        return TrainingProgress(
            step=self.step,
            steps=self.settings.steps,
            loss=loss,
            learning_rate=rate,
            gradient_norm=norm,
            steps_per_s=len(self._durations) / max(sum(self._durations), 1e-9),
            peak_memory_bytes=peak_memory_bytes(self.accelerator.device),
            clip_ids=clip_ids,
        )

    def _last_checkpoint(self) -> str | None:
        latest = read_latest(self.folder)
        return None if latest is None else str(checkpoint_path(self.folder, latest.step))

    def _write(self, interrupt: Interrupt, *, scheduled: bool) -> None:
        """Write a checkpoint; every process takes part in gathering it, the first one writes."""
        began_s = self.clock.now()
        state = self.optimizer.state  # not state_dict(): bitsandbytes nests its tensors there
        checkpoint = Checkpoint(
            step=self.step,
            parameters=_on_cpu(self.parameters),
            averaged=None if self.average is None else _on_cpu(self.average),
            optimizer={
                name: {key: _kept(value) for key, value in state[parameter].items()}
                for name, parameter in self.parameters.items()
                if parameter in state
            },
            losses=tuple(self.guard.losses),
            identity=self.identity,
            scheduled=scheduled,
        )
        first_does(self.accelerator, lambda still: self._write_alone(checkpoint, interrupt, still))
        self.clock.written(began_s)

    def _write_alone(self, checkpoint: Checkpoint, interrupt: Interrupt, still: Callable[[], None]) -> None:
        self._raise_failure()
        weights = checkpoint.averaged if checkpoint.averaged is not None else checkpoint.parameters
        beside_bytes = sum(tensor.nbytes for tensor in weights.values())
        wait_for_room(self.folder, checkpoint.size_bytes + beside_bytes, lambda: interrupt.asked, waiting=still)
        write_checkpoint(
            self.folder,
            checkpoint,
            self.settings.checkpoints.keep,
            best=self.best(),
            beside=lambda folder: self.task.save_beside(folder, checkpoint.step, weights),
        )

    def _resume(self) -> None:
        """Resume from the last whole checkpoint of the folder, if there is one; raises InputError if it is of another run."""
        latest = read_latest(self.folder)
        if latest is None:
            return
        require_same(latest.identity, self.identity, str(self.folder))
        if self.accelerator.is_main_process:
            report_damaged(self.folder, latest.step)
        source = str(checkpoint_path(self.folder, latest.step))
        shapes = {name: tuple(parameter.shape) for name, parameter in self.parameters.items()}
        check_exact(source, shapes, latest.parameters)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(sharded_like(latest.parameters[name], parameter))
                if self.average is not None and latest.averaged is not None:
                    self.average[name].copy_(sharded_like(latest.averaged[name], self.average[name]))
        state = {
            index: {key: sharded_like(value, parameter) for key, value in latest.optimizer[name].items()}
            for index, (name, parameter) in enumerate(self._in_groups())
            if name in latest.optimizer
        }
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.guard = Guard(self.settings.max_loss_factor, latest.losses)
        self.step = latest.step

    def _in_groups(self) -> list[tuple[str, nn.Parameter]]:
        """Return what trains, with names, in the order in which the optimizer numbers it: group by group."""
        names = {id(parameter): name for name, parameter in self.parameters.items()}
        return [(names[id(p)], p) for group in self.optimizer.param_groups for p in group["params"]]


def draw_seed(seed: int, batch: int) -> int:
    """Return the seed of the draws of batch number `batch` of a run."""
    return int(np.random.SeedSequence([seed, batch]).generate_state(1, np.uint64)[0]) >> 1


def compile_blocks(module: nn.Module) -> None:
    """Compile in place: the repeated blocks where a diffusers model names them (they share one compilation), else all."""
    if getattr(module, "_repeated_blocks", None):
        module.compile_repeated_blocks()  # type: ignore[operator]
    else:
        module.compile()


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most memory that was in use: allocated on a GPU, resident on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: _kept(tensor) for name, tensor in tensors.items()}


def _kept(value: Any) -> Any:
    return whole(value.detach()).to("cpu", copy=True) if isinstance(value, Tensor) else value
