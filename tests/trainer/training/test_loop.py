"""What a step is: the mean over its clips, clipped, at the schedule's rate; and when it is refused. On a small real task."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy_task import Log, ToyTask, read_log, toy_settings

from scenes.errors import InputError, StopdownError
from trainer.config.train import OptimizerSettings, TrainSettings
from trainer.data.batch import Batch
from trainer.errors import DivergedError
from trainer.training.checkpoints.checkpoint import read_latest
from trainer.training.ema import start_average, update_average
from trainer.training.guard import ENOUGH, Guard
from trainer.training.loop import Loop, draw_seed
from trainer.training.loop_settings import LoopSettings
from trainer.training.optimizers import OPTIMIZERS, make_optimizer
from trainer.training.schedule import learning_rate
from trainer.training.setup import check_device, make_accelerator


def loop(task: Any, settings: TrainSettings, folder: Path, *callbacks: Any) -> Loop:
    return Loop(task, settings, folder, make_accelerator(settings), callbacks=callbacks)


def weights(task: ToyTask) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in task.net.named_parameters()}


class Short(ToyTask):
    """Batches of one or two clips by turns."""

    def micro_batch(self, micro_step: int, rank: int, ranks: int) -> Batch:
        batch = super().micro_batch(micro_step, rank, ranks)
        count = 1 + micro_step % 2
        return Batch(clip_ids=batch.clip_ids[:count], tensors={"clean": batch.tensors["clean"][:count]})


def by_hand(task: ToyTask, settings: TrainSettings) -> tuple[list[float], dict[str, Tensor]]:
    """Train without the loop: all clips of a step at once, torch's own clipping. Returns losses and the average."""
    own, chosen = task.parameters(), settings.optimizer
    optimizer = torch.optim.AdamW(own.values(), betas=chosen.betas, weight_decay=chosen.weight_decay)
    average, losses = {name: p.detach().clone() for name, p in own.items()}, []
    for step in range(settings.steps):
        task.net.gate = min(1.0, (step + 1) / task.ramp_steps)
        numbers = range(step * settings.accumulation, (step + 1) * settings.accumulation)
        parts = [
            task.losses(
                task.micro_batch(number, 0, 1),
                torch.Generator().manual_seed(draw_seed(settings.seed, number)),
                task.module,
            )
            for number in numbers
        ]
        loss = torch.cat(parts).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(own.values(), chosen.clip_norm)
        optimizer.param_groups[0]["lr"] = learning_rate(chosen, chosen.learning_rate, step, settings.steps)
        optimizer.step()
        decay = min(chosen.ema_decay, (2 + step) / (11 + step))
        average = {name: decay * average[name] + (1 - decay) * p.detach() for name, p in own.items()}
        losses.append(loss.item())
    return losses, average


@pytest.mark.parametrize("kind", [ToyTask, Short])
def test_a_run_equals_one_written_by_hand(kind: type[ToyTask], tmp_path: Path) -> None:
    settings = toy_settings(optimizer={"clip_norm": 0.7})
    task, twin = kind(settings), kind(settings)
    made = loop(task, settings, tmp_path, Log(tmp_path / "log.jsonl"))
    made.run()
    losses, average = by_hand(twin, settings)
    rows = read_log(tmp_path / "log.jsonl")
    assert [row["step"] for row in rows] == list(range(1, settings.steps + 1))
    assert [row["loss"] for row in rows] == pytest.approx(losses, rel=1e-5)
    assert any(row["norm"] > 0.7 for row in rows) and any(row["norm"] < 0.7 for row in rows)
    for name, expected in weights(twin).items():
        torch.testing.assert_close(weights(task)[name], expected, rtol=1e-4, atol=1e-6)
    for name, expected in average.items():
        torch.testing.assert_close(made.average[name], expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(weights(task)["frozen.weight"], weights(ToyTask(settings))["frozen.weight"])


def test_what_is_saved_is_the_average_where_there_is_one(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    for name, decay in (("with", 0.9), ("without", 0.0)):
        settings = toy_settings(optimizer={"ema_decay": decay}, steps=5)
        task = ToyTask(settings)
        made = loop(task, settings, tmp_path / name)
        made.run()
        made.save(tmp_path / name / "result")
        saved = load_file(tmp_path / name / "result" / "weights.safetensors")
        live = {key: value for key, value in weights(task).items() if not key.startswith("frozen")}
        assert set(saved) == set(live)
        assert all(torch.equal(saved[key], live[key]) for key in live) is (decay == 0)


def test_training_learns(tmp_path: Path) -> None:
    settings = toy_settings(steps=120, optimizer={"ema_decay": 0})
    loop(ToyTask(settings), settings, tmp_path, Log(tmp_path / "log.jsonl")).run()
    losses = [row["loss"] for row in read_log(tmp_path / "log.jsonl")]
    assert sum(losses[-20:]) < 0.75 * sum(losses[:20])


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
def test_the_rate_rises_over_the_warm_up_and_never_after(schedule: Any) -> None:
    chosen = OptimizerSettings(learning_rate=0.5, warmup_steps=10, schedule=schedule)
    rates = [learning_rate(chosen, chosen.learning_rate, step, 50) for step in range(50)]
    assert rates[:10] == pytest.approx([0.05 * (step + 1) for step in range(10)])
    assert all(a >= b for a, b in itertools.pairwise(rates[9:])) and rates[-1] > 0
    assert learning_rate(chosen, chosen.learning_rate, 50, 50) == (
        0.5 if schedule == "constant" else pytest.approx(0, abs=1e-12)
    )
    if schedule != "constant":
        assert learning_rate(chosen, chosen.learning_rate, 30, 50) == pytest.approx(0.25)


def test_the_average_forgets_its_start() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    average = start_average({"p": parameter})
    parameter.data.fill_(1.0)
    for step in range(1, 200):
        update_average(average, {"p": parameter}, 0.9999, step)
    assert 0.99 < average["p"].item() < 1


@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e6])
def test_a_step_that_would_spoil_the_weights_is_not_made(poison: float, tmp_path: Path) -> None:
    settings = toy_settings(steps=60, checkpoints={"every": 10, "keep": 2}, optimizer={"max_loss_factor": 30})
    task, twin = ToyTask(settings), ToyTask(settings)
    made = loop(task, settings, tmp_path)

    class Poisoner(Log):
        def stepped(self, task: Any, progress: Any) -> None:
            super().stepped(task, progress)
            if progress.step == 25:
                task.poison["clip-3"] = poison

    made.callbacks = (Poisoner(tmp_path / "log.jsonl"),)
    with pytest.raises(DivergedError) as caught:
        made.run()
    message = str(caught.value)
    assert caught.value.exit_code == 1 and "\n" not in message
    assert message.split("clips and their losses: ")[1].startswith("clip-3 (") and "checkpoint-20" in message
    made_steps = len(read_log(tmp_path / "log.jsonl"))
    assert made_steps >= 25
    clean = loop(twin, settings, tmp_path / "clean")
    for step in range(made_steps):
        clean.step = step
        clean.settings = LoopSettings.of(settings)
        clean._make_step(_NoInterrupt())
    assert all(torch.equal(weights(task)[name], value) for name, value in weights(twin).items())
    assert read_latest(tmp_path).step == 20


class _NoInterrupt:
    asked = False


def test_the_guard_waits_until_a_median_means_something() -> None:
    guard = Guard(10.0)
    for _ in range(ENOUGH - 1):
        assert guard.fault(1e9, 1.0) is None
        guard.passed(1.0)
    guard.passed(1.0)
    assert guard.fault(9.9, 1.0) is None and "10 times" in guard.fault(10.1, 1.0)
    assert "gradient" in guard.fault(1.0, math.nan)
    assert Guard(0.0, [1.0] * 50).fault(1e9, 1.0) is None


@pytest.mark.parametrize(
    "fail",
    [
        lambda: torch.empty(2**60),  # main memory: what torch really raises
        lambda: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")),
    ],
)
def test_full_memory_becomes_a_line_that_says_what_to_lower(fail: Callable[[], Any], tmp_path: Path) -> None:
    class Hungry(ToyTask):
        def losses(self, batch: Batch, generator: torch.Generator, module: nn.Module) -> Tensor:
            fail()
            return super().losses(batch, generator, module)

    settings = toy_settings()
    with pytest.raises(StopdownError) as caught:
        loop(Hungry(settings), settings, tmp_path).run()
    message = str(caught.value)
    assert "\n" not in message and caught.value.exit_code == 2
    for word in ("size", "frame", "batch_size", "gradient_checkpointing", "quantization"):
        assert word in message


def test_other_runtime_errors_pass_through(tmp_path: Path) -> None:
    class Broken(ToyTask):
        def losses(self, batch: Batch, generator: torch.Generator, module: nn.Module) -> Tensor:
            raise RuntimeError("shapes do not fit")

    settings = toy_settings()
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        loop(Broken(settings), settings, tmp_path).run()


def test_a_task_must_name_all_that_requires_gradients(tmp_path: Path) -> None:
    settings = toy_settings()
    task = ToyTask(settings)
    task.net.frozen.weight.requires_grad_(True)
    with pytest.raises(StopdownError, match="require gradients"):
        loop(task, settings, tmp_path)


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_every_optimizer_moves_weights_and_goes_on_exactly(name: str, tmp_path: Path) -> None:
    if name == "adamw_8bit":
        pytest.importorskip("bitsandbytes")
    runs = {"whole": (6,), "parts": (3, 6)}
    reached = {}
    for run, ends in runs.items():
        for end in ends:
            settings = toy_settings(steps=end, optimizer={"name": name, "schedule": "constant"})
            task = ToyTask(settings)
            start = weights(task)
            loop(task, settings, tmp_path / run).run()
        reached[run] = weights(task)
        assert not torch.equal(start["head.weight"], reached[run]["head.weight"])
    for key, value in reached["whole"].items():
        assert torch.equal(value, reached["parts"][key]), key


def test_an_optimizer_without_its_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="adamw_8bit' needs bitsandbytes, which is not installed"):
        make_optimizer([nn.Parameter(torch.ones(1))], OptimizerSettings(name="adamw_8bit"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_cuda_asked_for_and_absent_is_one_line(device: str) -> None:
    with pytest.raises(InputError, match=f"device '{device}' was asked for and this machine has no usable CUDA GPU"):
        check_device(device)
