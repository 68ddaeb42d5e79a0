"""Whole models in training: a transformer, with its text encoder or without, and an autoencoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel
from hypothesis import given
from hypothesis import strategies as st
from task_support import LENGTH, fit, held_loss, losses
from torch import Tensor, nn

from scenes.errors import InputError, StopdownError
from trainer.backbones.load import load_backbone
from trainer.data import TrainingData, open_data
from trainer.data.batches import FlowBatches
from trainer.data.encoding import EncodedReader
from trainer.data.frames import FrameBatches
from trainer.methods.transformer.task import TextParts, TransformerTask
from trainer.methods.vae.task import Reconstruction, VaeTask, normal_divergence
from trainer.training.tasks.flow import RectifiedFlow


@pytest.fixture(scope="module")
def data(two_axes: Path) -> TrainingData:
    """The dataset of two axes."""
    return open_data(two_axes)


@pytest.fixture
def pipe(tiny_folder: Path) -> WanPipeline:
    """A tiny backbone of its own for every test."""
    return load_backbone(str(tiny_folder))


def whole_transformer(pipe: WanPipeline, data: TrainingData, reader: EncodedReader, *, joint: bool) -> TransformerTask:
    """Return a task that trains the whole transformer, and the text encoder with it if asked for."""
    text = TextParts(tokenizer=pipe.tokenizer, encoder=pipe.text_encoder, length=LENGTH) if joint else None
    batches = FlowBatches(data.train, reader, batch_size=4, seed=0, text=text.tokens if text is not None else None)
    return TransformerTask(pipe.transformer, batches, RectifiedFlow.of(pipe), text=text)


@pytest.mark.parametrize("joint", [False, True])
def test_a_whole_transformer_learns_and_is_saved(
    pipe: WanPipeline, data: TrainingData, reader: EncodedReader, tmp_path: Path, joint: bool
) -> None:
    task = whole_transformer(pipe, data, reader, joint=joint)
    before = held_loss(task, 2)
    fit(task, 40, 5e-3)
    assert held_loss(task, 2) < 0.8 * before
    assert [name for name, p in task.parameters().items() if p.grad is None] == []
    averaged = {name: p.detach() * 0.5 for name, p in task.parameters().items()}
    task.save(tmp_path, 40, averaged)
    saved = WanTransformer3DModel.from_pretrained(tmp_path / "transformer")
    prefix = "transformer." if joint else ""
    assert all(torch.equal(p, averaged[prefix + name]) for name, p in saved.named_parameters())
    assert (tmp_path / "text_encoder").exists() == joint


def test_a_text_encoder_in_training_gives_what_the_cache_holds(
    pipe: WanPipeline, data: TrainingData, reader: EncodedReader
) -> None:
    cached = whole_transformer(pipe, data, reader, joint=False)
    joint = whole_transformer(pipe, data, reader, joint=True)
    for task in (cached, joint):
        task.module.eval()
    batches = [task.micro_batch(2, 0, 1) for task in (cached, joint)]
    assert batches[0].clip_ids == batches[1].clip_ids
    for seed in range(3):  # some captions are dropped
        torch.testing.assert_close(losses(joint, batches[1], seed), losses(cached, batches[0], seed), atol=1e-5, rtol=1e-4)


def test_a_text_encoder_does_not_train_on_embeddings(pipe: WanPipeline, data: TrainingData, reader: EncodedReader) -> None:
    text = TextParts(tokenizer=pipe.tokenizer, encoder=pipe.text_encoder, length=LENGTH)
    with pytest.raises(StopdownError, match="trains on tokens"):
        TransformerTask(
            pipe.transformer, FlowBatches(data.train, reader, batch_size=1, seed=0), RectifiedFlow.of(pipe), text=text
        )


def frame_batches(data: TrainingData, **options: object) -> FrameBatches:
    """Return batches of crops."""
    return FrameBatches(data, data.train, **{"batch_size": 2, "seed": 0, "lengths": (1, 5), **options})


def test_an_autoencoder_is_trained_through_its_own_passes(pipe: WanPipeline, data: TrainingData) -> None:
    """The forward is diffusers' encode and decode, but for the clamp: values beyond white have a gradient."""
    module = Reconstruction(pipe.vae)
    video = torch.randn(2, 3, 5, 16, 24, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(2, 16, 2, 2, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        made, mean, logvar = module(video, noise)
        expected = pipe.vae.decode(mean + (0.5 * logvar).exp() * noise).sample
        assert torch.equal(mean, pipe.vae.encode(video).latent_dist.mode())
        pipe.vae.decoder.conv_out.bias.fill_(5.0)
    torch.testing.assert_close(made.clamp(-1, 1), expected)
    made, _, _ = module(video, noise)
    assert made.min() > 1.0
    made.mean().backward()
    assert pipe.vae.encoder.conv_in.weight.grad.any()


def test_an_autoencoder_learns_and_is_saved(pipe: WanPipeline, data: TrainingData, tmp_path: Path) -> None:
    task = VaeTask(pipe.vae, frame_batches(data))
    batch = task.batches.batch([record for record in data.train if record.frames == 5][:2], 5, [0, 0])
    with torch.no_grad():
        before = losses(task, batch)
    fit(task, 12, 3e-3)
    with torch.no_grad():
        assert (losses(task, batch) < 0.8 * before).all()
    task.save(tmp_path, 1, None)
    saved = AutoencoderKLWan.from_pretrained(tmp_path / "vae")
    assert all(torch.equal(p, task.parameters()[name]) for name, p in saved.named_parameters())


class Fixed(nn.Module):
    """A reconstruction that is off by a constant and by a ramp along the columns, with a given posterior."""

    def __init__(self, vae: AutoencoderKLWan) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, video_B3THW: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the video, off by 0.5 plus 0.1 per column in the second clip."""
        off = torch.arange(video_B3THW.shape[-1]) * 0.1
        ramp = torch.stack([torch.zeros_like(off), off])[:, None, None, None, :]
        return video_B3THW + 0.5 + ramp, torch.ones_like(noise), torch.zeros_like(noise)


def test_the_loss_of_an_autoencoder_is_its_formula(pipe: WanPipeline, data: TrainingData) -> None:
    task = VaeTask(pipe.vae, frame_batches(data), gradient_weight=2.0, kl_weight=0.01, module=Fixed(pipe.vae))
    batch = task.batches.batch([record for record in data.train if record.frames == 5][:2], 5, [0, 0])
    width = batch.tensors["frames"].shape[3]
    kl = 0.01 * 0.5
    expected = torch.tensor([0.5 + kl, 0.5 + 0.1 * (width - 1) / 2 + 2.0 * 0.1 + kl])
    torch.testing.assert_close(losses(task, batch).detach(), expected, atol=1e-4, rtol=1e-4)


@given(st.floats(-2, 2), st.floats(-3, 2))
def test_the_divergence_is_that_of_two_normals(mean: float, logvar: float) -> None:
    q = torch.distributions.Normal(torch.tensor(mean), torch.tensor(0.5 * logvar).exp())
    expected = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0))
    shape = (1, 2, 1, 2, 2)
    found = normal_divergence(torch.full(shape, mean), torch.full(shape, logvar))
    torch.testing.assert_close(found, expected[None], atol=1e-4, rtol=1e-4)


def test_clips_that_an_autoencoder_cannot_take_are_refused(pipe: WanPipeline, data: TrainingData) -> None:
    with pytest.raises(InputError, match=r"crops of 3 frames do not fit the autoencoder; give 4n \+ 1"):
        VaeTask(pipe.vae, frame_batches(data, lengths=(1, 3)))
    with pytest.raises(InputError, match="is 84x64; the autoencoder takes multiples of 8"):
        VaeTask(pipe.vae, FrameBatches(data, [replace(data.train[0], width=84)], batch_size=1, seed=0, lengths=(1,)))
