"""Validation: it measures what it says it measures, at fixed noise, and leaves no trace in the run."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import WanPipeline
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from watch_support import AXES, MemoryReader, clips, control_task, make_loop, small_settings, tiny_pipe

from scenes.errors import InputError, StopdownError
from trainer.backbones.tiny_random import build_tiny
from trainer.control.lora import lora_layers
from trainer.data.batches import CONTROLS_NAME, LATENTS, TEXT, FlowBatches
from trainer.data.frames import FrameBatches
from trainer.data.records import TrainingClip
from trainer.methods.control.task import ControlTask
from trainer.methods.transformer.task import TransformerTask
from trainer.methods.vae.frame_validation import FrameValidation
from trainer.methods.vae.task import VaeTask
from trainer.training.callbacks.evaluation_mode import evaluation_mode
from trainer.training.callbacks.metrics import MetricsLog
from trainer.training.callbacks.validation import Validation, spread, times_of
from trainer.training.tasks.base import TrainingProgress
from trainer.training.tasks.flow import Draw, RectifiedFlow, times_within
from trainer.training.tasks.objective import fixed_noise, fixed_times

HELD_OUT = clips("held-out")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("backbones")


@pytest.fixture
def pipe(cache: Path) -> WanPipeline:
    return tiny_pipe(cache)


def validation(**options: object) -> Validation:
    """Return a validation of the held-out clips at two times."""
    return Validation(MetricsLog(()), HELD_OUT, AXES, **{"every": 3, "times": 2, "clips": 9, "batch_size": 2, **options})


def progress(step: int, steps: int = 100) -> TrainingProgress:
    """Return the progress of a step."""
    numbers = {"loss": 1.0, "learning_rate": 1.0, "gradient_norm": 1.0, "steps_per_s": 1.0, "peak_memory_bytes": 1}
    return TrainingProgress(step=step, steps=steps, clip_ids=("a",), **numbers)


def by_hand(task: ControlTask, place: int, time: float, controls: list[float]) -> float:
    """Return the loss of one held-out clip at one time, from first principles."""
    record, reader = HELD_OUT[place], MemoryReader()
    latents, noise = reader.latents(record)[None], fixed_noise(tuple(reader.latents(record).shape), record.clip_id)[None]
    noisy = (1 - time) * latents + time * noise
    with torch.no_grad():
        velocity = task.module(
            hidden_states=noisy,
            timestep=torch.tensor([time * 1000]),
            encoder_hidden_states=reader.text(record.caption)[None],
            attention_kwargs={"controls": torch.tensor([controls])},
            return_dict=False,
        )[0]
    return float((velocity - (noise - latents)).square().mean())


def test_losses_and_gap_are_those_of_the_formula(pipe: WanPipeline) -> None:
    task = control_task(pipe)
    values = validation().measure(task)
    times = fixed_times(2).tolist()
    true = np.array([[by_hand(task, n, t, list(HELD_OUT[n].controls)) for t in times] for n in range(5)])
    neutral = np.array([[by_hand(task, n, t, [0.0, 0.0]) for t in times] for n in range(5)])
    expected = {
        "loss": true.mean(),
        "loss/shutter": true[[0, 2]].mean(),
        "loss/temperature": true[[3, 4]].mean(),
        "gap/shutter": (neutral - true)[[0, 2]].mean(),
        "gap/temperature": (neutral - true)[[3, 4]].mean(),
        "gap": (neutral - true)[[0, 2, 3, 4]].mean(),
        "loss/size/1x32x32": true[[2, 4]].mean(),
        "loss/size/5x32x32": true[[0, 1, 3]].mean(),
        f"loss/time/{times[0]:.3f}": true[:, 0].mean(),
        f"loss/time/{times[1]:.3f}": true[:, 1].mean(),
    }
    assert values == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert min(abs(values[f"gap/{axis}"]) for axis in AXES) > 1e-5


def test_a_model_that_ignores_its_control_has_no_gap(pipe: WanPipeline) -> None:
    values = validation().measure(control_task(pipe, scrambled=False))
    gaps = [value for name, value in values.items() if name.startswith("gap")]
    assert len(gaps) == 3 and gaps == pytest.approx([0.0] * 3, abs=1e-6) and values["loss"] > 0.5


def test_it_is_fixed_and_at_full_control_whatever_the_ramp(pipe: WanPipeline) -> None:
    task = control_task(pipe)
    task.before_step(0)
    first = validation().measure(task)
    torch.manual_seed(77)
    task.before_step(3)
    assert validation().measure(task) == first
    assert validation(batch_size=1).measure(task) == pytest.approx(first, rel=1e-4, abs=1e-6)


def state_of(task: ControlTask) -> dict[str, object]:
    """Return all of a task and of the process that validation could touch."""
    adapter = task.adapters["transformer"]
    return {
        "mode": (adapter.mode, adapter.strength, adapter.ramp),
        "gates": [float(processor.gate.ramp) for processor in adapter.processors.values()],
        "training": [module.training for module in task.module.modules()],
        "wants_grad": [(name, p.requires_grad, p.grad is None) for name, p in task.module.named_parameters()],
        "active": [(name, tuple(layer.active_adapters), layer.scaling) for name, layer in lora_layers(task.module)],
        "random": (torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()),  # noqa: NPY002
    }


def copies(task: ControlTask) -> dict[str, Tensor]:
    """Return copies of all parameters of the module."""
    return {name: parameter.detach().clone() for name, parameter in task.module.named_parameters()}


def test_everything_is_as_before_also_when_it_fails(pipe: WanPipeline) -> None:
    task = control_task(pipe)
    task.before_step(1)
    averaged = {name: torch.randn_like(p) for name, p in task.parameters().items()}
    weights, state = copies(task), state_of(task)
    values = validation(averaged=lambda: averaged).measure(task)
    with pytest.raises(RuntimeError, match="burst"), evaluation_mode(task, averaged):
        task.adapters["transformer"].set_mode("backbone_only")
        torch.rand(3), np.random.rand(), random.random()  # noqa: NPY002
        raise RuntimeError("burst")
    assert state_of(task) == state
    assert all(torch.equal(parameter, weights[name]) for name, parameter in task.module.named_parameters())
    with torch.no_grad():
        for name, parameter in task.parameters().items():
            parameter.copy_(averaged[name])
    assert validation().measure(task) == values != validation().measure(control_task(build_tiny(5)))


def test_a_run_is_the_same_with_and_without_validation(cache: Path, tmp_path: Path) -> None:
    settings = small_settings()
    weights = []
    for name, options in (("without", None), ("with", {"every": 1}), ("other", {"every": 2, "times": 3, "batch_size": 1})):
        task = control_task(tiny_pipe(cache))
        callbacks = [] if options is None else [validation(**options)]
        loop = make_loop(task, settings, tmp_path / name, callbacks)
        if options is not None:
            callbacks[0].averaged = lambda loop=loop: loop.average
        loop.run()
        weights.append(
            {
                **{n: p.detach().clone() for n, p in task.parameters().items()},
                **{f"ema.{n}": a for n, a in loop.average.items()},
            }
        )
    for other in weights[1:]:
        assert all(torch.equal(tensor, other[name]) for name, tensor in weights[0].items())


def test_it_is_due_every_so_many_steps_and_at_the_last(pipe: WanPipeline) -> None:
    task, watcher = control_task(pipe), validation(every=3, times=1, clips=1)
    due = [step for step in range(1, 9) if watcher.stepped(task, progress(step, steps=8)) is not None]
    assert due == [3, 6, 8]


def test_what_cannot_be_validated_is_refused() -> None:
    with pytest.raises(InputError, match="no clip is held out"):
        Validation(MetricsLog(()), (), AXES, every=1, times=1, clips=1)

    class Sampled:
        name = "sampled"
        module = torch.nn.Linear(1, 1)

    with pytest.raises(StopdownError, match="task sampled has no loss at given noise"):
        validation().started(Sampled(), 0, 1)


def test_a_whole_transformer_is_validated_too(pipe: WanPipeline) -> None:
    batches = FlowBatches(clips("train"), MemoryReader(), batch_size=2, seed=1)
    task = TransformerTask(pipe.transformer, batches, RectifiedFlow.of(pipe, ("transformer",)))
    values = Validation(MetricsLog(()), HELD_OUT, (), every=1, times=2, clips=9, batch_size=2).measure(task)
    batch = batches.batch([HELD_OUT[0]])
    draw = Draw(
        times_B=fixed_times(2)[:1], noise_BCTHW=fixed_noise(tuple(batch.tensors[LATENTS].shape[1:]), batch.clip_ids[0])[None]
    )
    with torch.no_grad():
        one = task.losses_at(batch, draw, task.module)
    first = Validation(MetricsLog(()), HELD_OUT[:1], (), every=1, times=2, clips=9).measure(task)
    assert first[f"loss/time/{fixed_times(2)[0]:.3f}"] == pytest.approx(float(one), rel=1e-4)
    assert "gap" not in values and values["loss"] > 0 and set(batch.tensors) == {LATENTS, TEXT, CONTROLS_NAME}


class Noise:
    """Stands where a dataset's decoded clips do."""

    def frames(self, record: TrainingClip) -> np.ndarray:
        """Return frames [T, H, W, 3] that depend on the clip."""
        rng = np.random.default_rng(list(record.clip_id.encode()))
        return rng.integers(0, 256, (record.frames, record.height, record.width, 3), dtype=np.uint8)


def test_an_autoencoder_is_validated_at_fixed_noise(pipe: WanPipeline) -> None:
    train = clips("train", frames=(9, 5, 9))
    task = VaeTask(pipe.vae, FrameBatches(Noise(), train, batch_size=1, seed=0, lengths=(1, 5)))
    watcher = FrameValidation(MetricsLog(()), clips("held-out", frames=(1, 9)), (), every=1, times=1, clips=9)
    watcher.started(task, 0, 1)
    values = watcher.measure(task)
    assert set(values) == {"loss", "loss/size/1x32x32", "loss/size/5x32x32"}
    assert values["loss"] == pytest.approx((values["loss/size/1x32x32"] + values["loss/size/5x32x32"]) / 2)
    torch.manual_seed(3)
    assert watcher.measure(task) == values and task.module.training
    averaged = {name: torch.zeros_like(p) for name, p in task.parameters().items()}
    grey = FrameValidation(watcher.metrics_log, watcher.records, (), every=1, times=1, clips=9, averaged=lambda: averaged)
    assert grey.measure(task) != values and watcher.measure(task) == values
    with pytest.raises(StopdownError, match="task control is no autoencoder"):
        watcher.started(control_task(pipe), 0, 1)


@given(st.floats(0.5, 5.0), st.sampled_from([None, "transformer", "transformer_2"]))
def test_times_are_slices_of_what_is_trained(shift: float, expert: str | None) -> None:
    boundary = None if expert is None else 0.875
    flow = RectifiedFlow(patch_size=(1, 2, 2), boundary=boundary, shift=shift, trained=(expert or "transformer",))
    low, high = flow.time_range
    times = times_of(flow, 5)
    assert (times.diff() > 0).all() and times[0] > low and times[-1] < high
    drawn = times_within(3000, torch.Generator().manual_seed(0), flow.time_range, shift=shift)
    counts = torch.bucketize(drawn, (times[1:] + times[:-1]) / 2).bincount(minlength=5)
    assert counts.min() > 3000 / 5 * 0.5


@given(st.integers(1, 50), st.integers(1, 60))
def test_clips_are_spread_over_the_split(count: int, most: int) -> None:
    chosen = spread(range(count), most)
    assert len(chosen) == min(count, most) == len(set(chosen)) and list(chosen) == sorted(chosen)
    assert chosen[0] == 0 and (len(chosen) == 1 or chosen[-1] == count - 1)
