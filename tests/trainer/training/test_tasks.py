"""What is trained: tasks ask the right loss of the right parameters, learn from a dataset, and save what they learned."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from task_support import LENGTH, fit, held_loss, losses, scramble

from generator.store.splits import SplitRatios
from generator.versions.commit_folder import commit_folder
from generator.versions.history.history import History
from scenes.errors import InputError
from trainer.adapters.folder import attach_saved
from trainer.adapters.saved import SavedAdapter
from trainer.backbones.load import load_backbone
from trainer.control import AdapterConfig, ControlConfig, LoraSettings, Mode, resolve_blocks
from trainer.data import TrainingData, open_data
from trainer.data.batch import Batch
from trainer.data.batches import LATENTS, SCENES, FlowBatches
from trainer.data.cache import TensorCache
from trainer.data.encoding import EncodedReader, encode_all
from trainer.methods import METHODS
from trainer.methods.control.task import ControlTask, Provenance, attach_adapters
from trainer.training.tasks.flow import Draw, RectifiedFlow, drop_captions, shown_places, times_within
from trainer.training.tasks.objective import sample_times

Make = Callable[..., ControlTask]


@pytest.fixture(scope="module")
def data(two_axes: Path) -> TrainingData:
    """The dataset of two axes."""
    return open_data(two_axes)


@pytest.fixture
def pipe(tiny_folder: Path) -> WanPipeline:
    """A tiny backbone of its own for every test."""
    return load_backbone(str(tiny_folder))


@pytest.fixture
def make(pipe: WanPipeline, data: TrainingData, reader: EncodedReader) -> Make:
    """Return a maker of control tasks on the tiny backbone."""

    def made(
        *, control: bool = True, lora: bool = True, trained: tuple[str, ...] = ("transformer",), **options: object
    ) -> ControlTask:
        axes = ControlConfig(axes=data.axes, blocks=resolve_blocks("deepest_third", 6), rank=8, alpha=8, hidden_dim=8)
        config = AdapterConfig(control=axes if control else None, lora=LoraSettings(rank=8, alpha=8) if lora else None)
        batches = FlowBatches(
            data.train,
            reader,
            batch_size=options.pop("batch_size", 2),
            seed=0,
            clips_per_scene=options.pop("clips_per_scene", 1),
        )
        provenance = Provenance(backbone_id="tiny-random", dataset_version=data.version_id, recipe={"steps": 3})
        flow = options.pop("flow", None) or RectifiedFlow.of(pipe, trained)
        return ControlTask(attach_adapters(pipe, config, trained=trained), batches, flow, provenance, **options)

    return made


def two_experts(pipe: WanPipeline, boundary: float = 0.6) -> WanPipeline:
    """Return the pipeline with a second expert."""
    second = copy.deepcopy(pipe.transformer)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.mul_(0.9)
    pipe.register_modules(transformer_2=second)
    pipe.register_to_config(boundary_ratio=boundary)
    return pipe


@given(st.floats(0.3, 6.0), st.floats(0.1, 0.9), st.booleans())
def test_times_of_one_expert_are_the_others_left_out(shift: float, boundary: float, high: bool) -> None:
    bounds = (boundary, 1.0) if high else (0.0, boundary)
    restricted = times_within(3000, torch.Generator().manual_seed(1), bounds, shift=shift)
    every = sample_times(60_000, torch.Generator().manual_seed(2), shift=shift)
    expected = every[(every >= boundary) if high else (every < boundary)]
    assert restricted.min() >= bounds[0] and restricted.max() <= bounds[1]
    if len(expected) > 500:
        assert ks_2samp(restricted.numpy(), expected.numpy()).pvalue > 1e-6


def test_only_what_trains_requires_gradients_and_is_named_uniquely(make: Make) -> None:
    task = make()
    trained = {id(p) for p in task.module.parameters() if p.requires_grad}
    assert trained == {id(p) for p in task.parameters().values()}
    assert all(p.dtype == torch.float32 for p in task.parameters().values())
    assert all(name.startswith("transformer.") for name in task.parameters())


def test_every_parameter_has_a_gradient_in_the_first_step(make: Make) -> None:
    task = make()
    task.before_step(0)
    losses(task, task.micro_batch(0, 0, 1)).mean().backward()
    assert [name for name, p in task.parameters().items() if p.grad is None] == []


def test_the_ramp_is_the_steps_and_ends_at_one(make: Make) -> None:
    task = make()
    gate = next(iter(task.adapters["transformer"].processors.values())).gate
    for step, ramp in ((0, 0.01), (49, 0.5), (99, 1.0), (100, 1.0), (5000, 1.0)):
        task.before_step(step)
        assert gate.ramp.item() == pytest.approx(ramp)
    task = make_again(task, ramp_steps=0)
    task.before_step(0)
    assert task.adapters["transformer"].ramp == 1.0


def make_again(task: ControlTask, **options: object) -> ControlTask:
    """Return another task around the same adapters."""
    return ControlTask(task.adapters, task.batches, task.flow, task.provenance, **options)


@pytest.mark.parametrize(
    ("arm", "mode"),
    [
        ({"control": True, "lora": True}, Mode.JOINT),
        ({"control": True, "lora": False}, Mode.CONTROL_ONLY),
        ({"control": False, "lora": True}, Mode.LORA_ONLY),
    ],
)
def test_every_arm_trains_all_that_it_has(make: Make, arm: dict[str, bool], mode: Mode) -> None:
    """The LoRA trains in all blocks, although at inference it acts in the conditioned ones only."""
    task = make(**arm)
    scramble(task)
    assert task.adapters["transformer"].mode == mode
    task.before_step(0)
    losses(task, task.micro_batch(1, 0, 1)).mean().backward()
    assert [name for name, p in task.parameters().items() if p.grad is None or not p.grad.any()] == []


def test_losses_of_a_mixed_batch_are_those_of_its_clips(make: Make, data: TrainingData) -> None:
    task = make()
    scramble(task)
    records = [record for record in data.train if record.shape == (5, 64, 80)][:4]
    assert len({record.controls for record in records}) == 4
    batch = task.batches.batch(records)
    draw = task.flow.draw(batch.tensors["latents"], torch.Generator().manual_seed(7))
    together = task.losses_at(batch, draw, task.module)
    for place, record in enumerate(records):
        own = Draw(times_B=draw.times_B[place, None], noise_BCTHW=draw.noise_BCTHW[place, None])
        alone = task.losses_at(task.batches.batch([record]), own, task.module)
        torch.testing.assert_close(alone[0], together[place], atol=1e-5, rtol=1e-5)
    neutral = Batch(clip_ids=batch.clip_ids, tensors={**batch.tensors, "controls": torch.zeros_like(batch.tensors["controls"])})
    assert (task.losses_at(neutral, draw, task.module) != together).all()


def test_losses_are_those_of_the_backbone_while_nothing_is_learned(make: Make, pipe: WanPipeline, data: TrainingData) -> None:
    bare = copy.deepcopy(pipe.transformer)
    task = make(control=False)
    batch = task.micro_batch(0, 0, 1)
    draw = task.flow.draw(batch.tensors["latents"], torch.Generator().manual_seed(0))
    expected = task.flow.losses(bare, batch.tensors["latents"], batch.tensors["text"], None, draw)
    assert torch.equal(losses(task, batch), expected)


def test_gradients_with_and_without_checkpointing_are_equal(make: Make) -> None:
    found = []
    task = make(gradient_checkpointing=False)
    scramble(task)
    for again in (task, make_again(task, gradient_checkpointing=True)):
        again.module.zero_grad()
        losses(again, again.micro_batch(0, 0, 1)).mean().backward()
        found.append({name: p.grad.clone() for name, p in again.parameters().items()})
    assert task.module.is_gradient_checkpointing
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], atol=1e-7, rtol=1e-5)


def test_a_narrow_backbone_trains_wide_parameters(make: Make, pipe: WanPipeline) -> None:
    wide = make()
    batch = wide.micro_batch(0, 0, 1)
    expected = losses(wide, batch)
    wide.adapters["transformer"].detach()
    pipe.transformer.to(torch.bfloat16)
    for autocast in (None, torch.bfloat16):
        task = make(flow=replace(wide.flow, dtype=torch.bfloat16, autocast=autocast))
        found = losses(task, batch)
        found.mean().backward()
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, atol=0.05, rtol=0.05)
        assert all(p.dtype == p.grad.dtype == torch.float32 for p in task.parameters().values())
        task.adapters["transformer"].detach()


def test_clips_of_a_scene_are_told_apart_by_their_control_alone(make: Make) -> None:
    task = make(batch_size=6, clips_per_scene=3)
    batch = task.micro_batch(0, 0, 1)
    scenes = batch.tensors[SCENES].tolist()
    assert 1 < len(set(scenes)) < 6
    draw = task.flow.draw(batch.tensors[LATENTS], torch.Generator().manual_seed(5))
    same = Draw(times_B=draw.times_B[scenes], noise_BCTHW=draw.noise_BCTHW[scenes])
    torch.testing.assert_close(
        task.losses(batch, torch.Generator().manual_seed(5), task.module), task.losses_at(batch, same, task.module)
    )
    records = {record.clip_id: record for record in task.batches.records}
    for clip, first in zip(batch.clip_ids, scenes, strict=True):
        assert records[clip].scene_id == records[batch.clip_ids[first]].scene_id
    task.adapters["transformer"].detach()
    assert SCENES not in make(batch_size=6).micro_batch(0, 0, 1).tensors


def test_contradiction_and_contrast_reach_the_loss(make: Make) -> None:
    task = make(batch_size=6, clips_per_scene=3)
    scramble(task)
    batch = task.micro_batch(0, 0, 1)
    latents, scenes = batch.tensors[LATENTS], batch.tensors[SCENES]

    def drawn(**options: float) -> torch.Tensor:
        return make_again(task, **options).losses(batch, torch.Generator().manual_seed(5), task.module)

    draws = torch.Generator().manual_seed(5)
    draw = task.flow.draw(latents, draws).taken(scenes)
    shown = draw.showing(latents, shown_places(scenes, 1.0, draws))
    assert not torch.equal(shown.noise_BCTHW, draw.noise_BCTHW)
    torch.testing.assert_close(drawn(counterfactual_noise=1.0), task.losses_at(batch, shown, task.module))
    plain, strong = drawn(), drawn(contrast=4.0)
    assert (strong.mean() > plain.mean()) and not torch.equal(plain, drawn(counterfactual_noise=1.0))
    task.adapters["transformer"].detach()
    alone = make(batch_size=2)
    with pytest.raises(InputError, match="need clips of a scene together; give clips_per_scene above 1"):
        make_again(alone, contrast=2.0)


def test_dropped_captions_are_the_empty_one(make: Make) -> None:
    task = make(batch_size=4)
    text = torch.cat([task.micro_batch(step, 0, 1).tensors["text"] for step in range(50)])
    empty = task.batches.empty_text()
    dropped = drop_captions(text, empty, 0.3, torch.Generator().manual_seed(0))
    is_empty = (dropped == empty).flatten(1).all(1)
    assert torch.equal(dropped[~is_empty], text[~is_empty]) and 0.2 < is_empty.float().mean() < 0.4
    with pytest.raises(InputError, match="caption dropout 1 is impossible"):
        make_again(task, caption_dropout=1.0)


def test_caption_dropout_changes_the_text_and_not_the_noise(make: Make) -> None:
    task = make(batch_size=4)
    scramble(task)
    often, never = make_again(task, caption_dropout=0.5), task
    batch = task.micro_batch(0, 0, 1)
    with_dropout, without = losses(often, batch, 3), losses(never, batch, 3)
    same = with_dropout == without
    assert same.any() and not same.all()


@pytest.mark.parametrize("trained", [("transformer",), ("transformer_2",), ("transformer", "transformer_2")])
def test_the_expert_in_charge_of_a_noise_level_is_the_one_that_learns(
    make: Make, pipe: WanPipeline, trained: tuple[str, ...]
) -> None:
    two_experts(pipe)
    bare = {name: copy.deepcopy(getattr(pipe, name)) for name in ("transformer", "transformer_2")}
    task = make(trained=trained, batch_size=6)
    batch = task.micro_batch(0, 0, 1)
    draw = task.flow.draw(batch.tensors["latents"], torch.Generator().manual_seed(1))
    serves = {"transformer": draw.times_B >= 0.6, "transformer_2": draw.times_B < 0.6}
    found = task.losses_at(batch, draw, task.module)
    assert sum(int(rows.sum()) for name, rows in serves.items() if name in trained) == 6
    for name in trained:
        assert serves[name].any()
        own = Draw(times_B=draw.times_B[serves[name]], noise_BCTHW=draw.noise_BCTHW[serves[name]])
        parts = [batch.tensors[part][serves[name]] for part in ("latents", "text")]
        expected = replace(task.flow, trained=(name,)).losses(bare[name], *parts, None, own)
        torch.testing.assert_close(found[serves[name]], expected, atol=1e-5, rtol=1e-4)  # the control is still at zero
    if len(trained) == 2:
        found[serves["transformer"]].mean().backward()
        reached = {name.split(".")[0] for name, p in task.parameters().items() if p.grad is not None and p.grad.any()}
        assert reached == {"transformer"}


def test_experts_that_are_not_there_are_refused(make: Make, pipe: WanPipeline) -> None:
    with pytest.raises(InputError, match="no expert 'transformer_2'; choose among transformer"):
        RectifiedFlow.of(pipe, ("transformer_2",))
    pipe.register_modules(transformer_2=copy.deepcopy(pipe.transformer))
    task = make(trained=("transformer", "transformer_2"))
    with pytest.raises(InputError, match="no boundary between them"):
        losses(task, task.micro_batch(0, 0, 1))


def test_times_per_token_give_the_same_loss(make: Make, pipe: WanPipeline) -> None:
    task = make()
    batch = task.micro_batch(3, 0, 1)
    expected = losses(task, batch)
    pipe.register_to_config(expand_timesteps=True)
    task.flow = RectifiedFlow.of(pipe)
    assert task.flow.per_token
    torch.testing.assert_close(losses(task, batch), expected, atol=1e-5, rtol=1e-4)


def test_a_control_adapter_learns_from_the_dataset(make: Make) -> None:
    task = make(batch_size=4)
    before = held_loss(task)
    fit(task, 60, 1e-2)
    after = held_loss(task)
    assert after < 0.9 * before
    adapter = task.adapters["transformer"]
    for record in task.batches.records[:1]:
        batch = task.batches.batch([record])
        other = Batch(clip_ids=batch.clip_ids, tensors={**batch.tensors, "controls": -batch.tensors["controls"]})
        assert not torch.equal(losses(task, batch), losses(task, other))
    assert adapter.embedding.lin2.weight.any()


@pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="bpy is not installed (pip install 'stopdown[render]')")
def test_rendered_clips_are_trained_on(copied_dataset: Path, pipe: WanPipeline, tmp_path: Path) -> None:
    """Renders of three families, each with an axis of its own: every clip has controls for all three."""
    commit_folder(History.open(copied_dataset), "renders", splits=SplitRatios(train=1.0, validation=0.0, test=0.0))
    data = open_data(copied_dataset)
    assert [axis.name for axis in data.axes] == ["shutter", "aperture", "temperature"]
    cache = TensorCache(tmp_path / "cache")
    reader = EncodedReader(encode_all(pipe, data, cache, text_length=LENGTH), cache)
    control = ControlConfig(axes=data.axes, blocks=(4, 5), rank=4)
    adapters = attach_adapters(pipe, AdapterConfig(control=control, lora=LoraSettings(rank=4)))
    batches = FlowBatches(data.train, reader, batch_size=2, seed=0)
    task = ControlTask(adapters, batches, RectifiedFlow.of(pipe), Provenance(backbone_id="tiny-random"))
    before = held_loss(task)
    fit(task, 20, 1e-2)
    assert held_loss(task) < before


def test_what_is_saved_is_what_was_trained(make: Make, tiny_folder: Path, tmp_path: Path) -> None:
    task = make()
    scramble(task)
    task.save(tmp_path / "adapter", 12, None)
    task.save(tmp_path / "adapter", 13, None)
    fresh = load_backbone(str(tiny_folder))
    saved = SavedAdapter.open(tmp_path / "adapter")
    card, adapters = saved.card, attach_saved({"transformer": fresh.transformer}, saved)
    assert (card.step, card.backbone.id) == (13, "tiny-random")
    assert card.dataset_version == task.provenance.dataset_version and card.recipe == {"steps": 3}
    again = make_again(task)
    again.adapters, again.module = adapters, fresh.transformer
    adapters["transformer"].set_mode(Mode.JOINT)
    batch = task.micro_batch(0, 0, 1)
    torch.testing.assert_close(losses(again, batch), losses(task, batch), atol=1e-6, rtol=1e-6)


def test_averaged_weights_are_saved_and_the_own_ones_stay(make: Make, tiny_folder: Path, tmp_path: Path) -> None:
    task = make()
    scramble(task)
    own = {name: p.detach().clone() for name, p in task.parameters().items()}
    averaged = {name: p * 0.5 + 1.0 for name, p in own.items()}
    task.save(tmp_path / "adapter", 1, averaged)
    fresh = {"transformer": load_backbone(str(tiny_folder)).transformer}
    adapters = attach_saved(fresh, SavedAdapter.open(tmp_path / "adapter"))
    for name, parameter in adapters["transformer"].parameters().items():
        assert torch.equal(parameter, averaged[f"transformer.{name}"])
    assert all(torch.equal(p, own[name]) for name, p in task.parameters().items())
    with pytest.raises(InputError, match="1 missing"):
        task.save(tmp_path / "adapter", 1, dict(list(averaged.items())[1:]))


def test_both_experts_are_saved_in_one_folder(make: Make, pipe: WanPipeline, tiny_folder: Path, tmp_path: Path) -> None:
    two_experts(pipe)
    task = make(trained=("transformer", "transformer_2"))
    scramble(task)
    task.save(tmp_path / "adapter", 1, {name: p + 1.0 for name, p in task.parameters().items()})
    again = two_experts(load_backbone(str(tiny_folder)))
    both = {"transformer": again.transformer, "transformer_2": again.transformer_2}
    adapters = attach_saved(both, SavedAdapter.open(tmp_path / "adapter"))
    for expert, adapter in adapters.items():
        for name, parameter in adapter.parameters().items():
            assert torch.equal(parameter, task.parameters()[f"{expert}.{name}"] + 1.0)


def test_the_registry_names_the_tasks() -> None:
    assert list(METHODS) == ["control", "transformer", "vae"]
