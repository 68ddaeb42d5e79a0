"""Previews: videos from one noise, a grid, readings that say what could not be read, and no trace in the run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import WanPipeline
from generation_support import generate_sweep
from PIL import Image
from watch_support import MemoryReader, clips, control_task, make_loop, small_settings, tiny_pipe

from generator.media.video import decode, encode
from scenes.errors import InputError
from trainer.backbones.memory import release
from trainer.config.train import PreviewSettings
from trainer.control import axis_control
from trainer.data.batches import FlowBatches
from trainer.generation.record import CRF, PRESET
from trainer.generation.sampler import Sampling
from trainer.methods.control.generate import sample
from trainer.methods.control.task import ControlTask
from trainer.methods.transformer.task import TransformerTask
from trainer.pipelines.controlled_wan import ControlledWan
from trainer.probing.sweep import SweepReport, ValueReading, read_sweep
from trainer.training.callbacks.metrics import Event, MetricsLog
from trainer.training.callbacks.preview import Preview, PreviewReading, preview_prompts, summarise
from trainer.training.callbacks.preview_pipeline import PreviewPipeline, autocasting
from trainer.training.callbacks.validation import Validation
from trainer.training.tasks.flow import RectifiedFlow

SETTINGS = PreviewSettings(every=2, values=3, frames=5, height=32, width=32, sampling_steps=1, guidance=1.0, seed=4)
GUIDED = SETTINGS.model_copy(update={"sampling_steps": 2, "guidance": 3.0})
PROMPTS = ("a red ball", "a blue cube")


class Kept:
    """A sink that keeps events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def open(self, step: int, steps: int) -> None:
        """Begin."""

    def write(self, event: Event) -> None:
        """Keep it."""
        self.events.append(event)

    def close(self) -> None:
        """End."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("backbones")


@pytest.fixture
def pipe(cache: Path) -> WanPipeline:
    return tiny_pipe(cache)


def studio(pipe: WanPipeline, task: ControlTask | None) -> PreviewPipeline:
    """Return a studio of a pipeline without its text encoder and autoencoder, as in training."""
    vae = pipe.vae
    release(pipe, "text_encoder", "vae")
    adapters = task.adapters if task is not None else {}
    return PreviewPipeline(pipe=pipe, adapters=adapters, embed=MemoryReader().text, vae=lambda: vae, sample=sample)


def preview(
    folder: Path, made_with: PreviewPipeline, prompts: tuple[str, ...] = PROMPTS, **options: object
) -> tuple[Preview, Kept]:
    """Return a preview watcher and what it logs."""
    kept = Kept()
    return Preview(MetricsLog((kept,)), folder, made_with, prompts, SETTINGS, **options), kept


def test_a_preview_leaves_videos_grids_and_readings(pipe: WanPipeline, tmp_path: Path) -> None:
    task = control_task(pipe)
    watcher, _ = preview(tmp_path, studio(pipe, task))
    (tmp_path / "previews" / ".step-000001-killed").mkdir(parents=True)
    watcher.started(task, 0, 4)
    readings = watcher.make(task, 2)
    folder = tmp_path / "previews" / "step-000002"
    assert [path.name for path in (tmp_path / "previews").iterdir()] == ["step-000002"]
    videos = sorted(folder.glob("*.mp4"))
    assert len(videos) == 2 * 2 * 3  # prompts, axes, values
    assert all(decode(path).shape == (5, 32, 32, 3) for path in videos)
    for axis in ("shutter", "temperature"):
        with Image.open(folder / f"grid-{axis}.png") as grid:
            assert grid.width > 300 and grid.height > 300
    tree = json.loads((folder / "readings.json").read_text())
    assert tree["step"] == 2 and [sweep["prompt"] for sweep in tree["sweeps"]] == [*PROMPTS, *PROMPTS]
    assert [one["control"] for one in tree["sweeps"][0]["readings"]] == [-1.0, 0.0, 1.0]
    assert tree["sweeps"][0]["readings"][0]["value"] == pytest.approx(1 / 400)
    assert [reading.report.axis for reading in readings] == ["shutter", "shutter", "temperature", "temperature"]
    saved = {path.stem.rpartition("_")[2]: decode(path) for path in videos if path.name.startswith("a-red-ball")}
    warm = [saved[name] for name in ("temperature-21125-k", "temperature-6500-k", "temperature-2000-k")]
    assert read_sweep(axis_control("temperature"), (-1.0, 0.0, 1.0), warm, 16) == readings[2].report
    watcher.make(task, 2)  # after a kill, the same step again
    assert len(list(folder.glob("*.mp4"))) == 12


def test_the_videos_are_those_of_the_adapter_in_use(pipe: WanPipeline, tmp_path: Path) -> None:
    """The same videos come from the whole pipeline with the averaged weights, the default mode and no ramp."""
    vae, encoder = pipe.vae, pipe.text_encoder
    embedded = {
        words: pipe.encode_prompt(words, do_classifier_free_guidance=False, max_sequence_length=9)[0][0].detach()
        for words in (PROMPTS[0], "")
    }
    task = control_task(pipe)
    averaged = {name: parameter.detach() * 1.5 for name, parameter in task.parameters().items()}
    task.before_step(0)  # a quarter of the ramp
    made_with = replace(studio(pipe, task), embed=embedded.__getitem__)
    Preview(MetricsLog(()), tmp_path, made_with, PROMPTS[:1], GUIDED, averaged=lambda: averaged).make(task, 2)
    with torch.no_grad():
        for name, parameter in task.parameters().items():
            parameter.copy_(averaged[name])
    task.adapters["transformer"].set_ramp(1.0)
    task.module.eval()
    pipe.register_modules(vae=vae, text_encoder=encoder)
    whole = ControlledWan.around(pipe, task.adapters)
    sampling = Sampling(width=32, height=32, frames=5, steps=2, guidance=3.0, text_tokens=9)
    made = generate_sweep(whole, PROMPTS[0], [{"shutter": c} for c in (-1.0, 0.0, 1.0)], sampling=sampling, seed=4)
    folder = tmp_path / "previews" / "step-000002"
    filmed = [decode(encode(frames_THW3, 16, CRF, PRESET)).astype(float) for frames_THW3 in made.frames_NTHW3]
    for place, value in enumerate(("1-400", "1-80", "1-16")):
        (path,) = folder.glob(f"*shutter-{value}.mp4")
        apart = [float(np.abs(decode(path) - frames_THW3).mean()) for frames_THW3 in filmed]
        assert apart[place] < 0.1 * min(apart[:place] + apart[place + 1 :]), apart  # float rounding is all that differs


def test_a_run_is_the_same_with_and_without_previews(cache: Path, tmp_path: Path) -> None:
    weights = []
    for name in ("without", "with"):
        pipe = tiny_pipe(cache)
        task = control_task(pipe)
        watcher, kept = preview(tmp_path / name, studio(pipe, task), PROMPTS[:1])
        loop = make_loop(task, small_settings(steps=3), tmp_path / name, [watcher] if name == "with" else [])
        watcher.averaged = lambda loop=loop: loop.average
        loop.run()
        weights.append({name: parameter.detach().clone() for name, parameter in task.module.named_parameters()})
    assert [event.step for event in kept.events] == [2, 3]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_what_the_probes_refuse_is_logged_as_unreadable(pipe: WanPipeline, tmp_path: Path) -> None:
    """Random weights show noise, and no axis can be read in noise."""
    task = control_task(pipe)
    watcher, kept = preview(tmp_path, studio(pipe, task), PROMPTS[:1])
    readings = watcher.make(task, 1)
    values = summarise(readings)
    for reading in readings:
        for one in reading.report.readings:
            assert values[f"{reading.report.axis}/0/c{one.control:.2f}"] == one.measured
            assert one.measured is not None or one.note
    assert values["shutter/readable"] == sum(one.measured is not None for one in readings[0].report.readings)
    assert values["shutter/videos"] == 3.0 and kept.events == []


def test_the_numbers_of_several_prompts_are_put_together() -> None:
    def report(rho: float | None, *measured: float | None) -> PreviewReading:
        readings = tuple(
            ValueReading(control=float(c), value=1.0, expected=float(c), measured=m)
            for c, m in zip((-1, 0, 1), measured, strict=True)
        )
        return PreviewReading(
            prompt="x",
            report=SweepReport(axis="shutter", unit="stop", readings=readings, rho=rho, slope=rho, median_error=None),
        )

    values = summarise([report(1.0, -1.2, 0.0, 1.1), report(0.5, -0.5, 0.0, None), report(None, None, None, None)])
    assert values["shutter/rho"] == 0.75 and values["shutter/readable"] == 5.0 and values["shutter/videos"] == 9.0
    assert values["shutter/median_error"] == pytest.approx(0.2)
    assert values["shutter/1/c1.00"] is None and values["shutter/1/c-1.00"] == -0.5
    assert summarise([report(None, None, None, None)])["shutter/rho"] is None


def test_a_whole_transformer_shows_a_video_per_prompt(pipe: WanPipeline, tmp_path: Path) -> None:
    batches = FlowBatches(clips("train"), MemoryReader(), batch_size=2, seed=1)
    task = TransformerTask(pipe.transformer, batches, RectifiedFlow.of(pipe, ("transformer",)))
    watcher, _ = preview(tmp_path, studio(pipe, None))
    watcher.started(task, 0, 1)
    assert watcher.make(task, 7) == ()
    folder = tmp_path / "previews" / "step-000007"
    assert len(list(folder.glob("*.mp4"))) == 2 and (folder / "grid.png").exists()
    assert task.module.training


def test_the_autoencoder_goes_home_again_and_the_scheduler_is_left_alone(pipe: WanPipeline) -> None:
    task = control_task(pipe)
    pipe.vae.train()
    made_with = studio(pipe, task)
    with made_with.open() as lent:
        assert lent.scheduler is not pipe.scheduler and not lent.vae.training
        assert lent.transformer is pipe.transformer and lent.text_encoder is None
    assert made_with.vae().training


def test_a_bfloat16_backbone_under_autocast_is_previewed_and_validated(pipe: WanPipeline, tmp_path: Path) -> None:
    pipe.transformer.to(torch.bfloat16)
    task = control_task(pipe)
    task.flow = replace(task.flow, dtype=torch.bfloat16, autocast=torch.bfloat16)
    made_with = replace(studio(pipe, task), autocast=torch.bfloat16)
    watcher, _ = preview(tmp_path, made_with, PROMPTS[:1])
    watcher.started(task, 0, 1)
    assert len(watcher.make(task, 1)) == 2
    held_out = clips("held-out")
    values = Validation(MetricsLog(()), held_out, ("shutter", "temperature"), every=1, times=1, clips=3).measure(task)
    assert np.isfinite(list(values.values())).all() and values["loss"] > 0.5
    assert {p.dtype for p in task.parameters().values()} == {torch.float32} and pipe.transformer.dtype == torch.bfloat16


def test_only_the_transformer_is_autocast_also_after_an_error() -> None:
    layer, seen = torch.nn.Linear(2, 2), []
    with autocasting(layer, torch.bfloat16):
        seen += [layer(torch.zeros(1, 2)).dtype, torch.nn.functional.linear(torch.zeros(1, 2), torch.zeros(2, 2)).dtype]
        with pytest.raises(RuntimeError):
            layer(torch.zeros(1, 3))
        seen.append(torch.is_autocast_enabled("cpu"))
    assert seen == [torch.bfloat16, torch.float32, False] and layer(torch.zeros(1, 2)).dtype == torch.float32


def test_prompts_are_the_recipes_or_captions_that_show_each_axis() -> None:
    held_out = clips("held-out")
    chosen = preview_prompts(SETTINGS, held_out, ("shutter", "temperature"))
    assert chosen == (held_out[0].caption, held_out[3].caption)
    assert preview_prompts(SETTINGS, held_out, ()) == (held_out[0].caption, held_out[1].caption)
    assert preview_prompts(PreviewSettings(prompts=("mine",)), held_out, ("shutter",)) == ("mine",)
    assert preview_prompts(SETTINGS, (), ("shutter",)) == ()


def test_what_cannot_be_previewed_is_refused_before_the_first_step(pipe: WanPipeline, tmp_path: Path) -> None:
    task = control_task(pipe)
    made_with = studio(pipe, task)
    with pytest.raises(InputError, match="previews have no prompt"):
        preview(tmp_path, made_with, ())
    odd = PreviewSettings(every=1, frames=5, height=32, width=40)
    with pytest.raises(InputError, match="40x32 does not fit"):
        Preview(MetricsLog(()), tmp_path, made_with, PROMPTS, odd).started(task, 0, 1)
