"""The objective and the cache: the flow is the one that diffusers integrates, and nothing cached is ever stale."""

from __future__ import annotations

import copy
import logging
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline
from hypothesis import given
from hypothesis import strategies as st
from trainer_support import adapted, predict, tiny_inputs

from scenes.errors import InputError
from trainer.backbones.load import load_backbone
from trainer.data.cache import TensorCache, cache_key, module_digest
from trainer.data.encoders import LatentEncoder, TextEncoder, pad_text
from trainer.training.tasks.flow import shown_places
from trainer.training.tasks.objective import (
    contrasted_losses,
    counterfactual_noise,
    fixed_noise,
    fixed_times,
    flow_losses,
    mix,
    model_times,
    predict_velocity,
    sample_times,
    shift_times,
)


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> WanPipeline:
    """A tiny backbone."""
    return load_backbone("tiny-random", cache=tmp_path_factory.mktemp("backbones"))


def clip(seed: int = 0, frames: int = 5) -> np.ndarray:
    """Return frames of noise."""
    return np.random.default_rng(seed).integers(0, 256, (frames, 16, 24, 3), dtype=np.uint8)


def test_the_sampler_of_diffusers_follows_the_flow_back_to_the_clip() -> None:
    """An oracle that returns the training target, integrated by a flow-matching scheduler, ends at the clean latents."""
    latents, noise = torch.randn(2, 4, 2, 4, 4), torch.randn(2, 4, 2, 4, 4)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(7)
    sample = noise
    for step, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        assert model_times(sigma[None], latents, (1, 2, 2), per_token=False).item() == pytest.approx(step.item(), rel=1e-5)
        torch.testing.assert_close(sample, mix(latents, noise, sigma.expand(2)), atol=1e-5, rtol=1e-5)
        sample = scheduler.step(noise - latents, step, sample).prev_sample
    torch.testing.assert_close(sample, latents, atol=1e-5, rtol=1e-5)


def test_the_loss_is_zero_only_for_the_target_and_float32() -> None:
    latents, noise = torch.randn(3, 4, 2, 4, 4), torch.randn(3, 4, 2, 4, 4)
    assert torch.equal(flow_losses(noise - latents, latents, noise), torch.zeros(3))
    off = noise - latents
    off[1] += 2.0
    torch.testing.assert_close(flow_losses(off, latents, noise), torch.tensor([0.0, 4.0, 0.0]))
    assert flow_losses(off.bfloat16(), latents.bfloat16(), noise.bfloat16()).dtype == torch.float32


def test_contrast_weighs_what_tells_clips_of_a_scene_apart_and_nothing_else() -> None:
    latents, noise, prediction = (torch.randn(5, 4, 2, 4, 4) for _ in range(3))
    scenes = torch.tensor([0, 0, 0, 3, 4])
    plain = flow_losses(prediction, latents, noise)
    same = contrasted_losses(prediction, latents, noise, scenes, 1.0)
    torch.testing.assert_close(same[:3].sum(), plain[:3].sum())
    strong = contrasted_losses(prediction, latents, noise, scenes, 9.0)
    torch.testing.assert_close(strong[3:], plain[3:])  # a clip alone has nothing to be told apart from
    error = (prediction - (noise - latents))[:3]
    apart = (error - error.mean(0)).square().mean()
    torch.testing.assert_close(strong[:3].mean() - plain[:3].mean(), 8 * apart)
    off = noise - latents + torch.randn(1, 4, 2, 4, 4)  # wrong, and alike in every clip
    torch.testing.assert_close(
        contrasted_losses(off, latents, noise, scenes, 9.0), flow_losses(off, latents, noise), atol=1e-5, rtol=1e-4
    )


@given(st.floats(0.02, 0.98))
def test_contradicting_noise_shows_the_other_clip_and_keeps_the_target(time: float) -> None:
    latents, noise = torch.randn(2, 4, 2, 4, 4), torch.randn(2, 4, 2, 4, 4)
    times, shown = torch.full((2,), time), torch.tensor([1, 1])
    found = counterfactual_noise(latents, noise, times, shown)
    assert torch.equal(found[1], noise[1])
    seen = mix(latents, found, times)
    share = min(1.0, time / (1 - time))  # of the other clip in what is seen
    expected = mix(latents * (1 - share) + latents[shown] * share, noise, times)
    torch.testing.assert_close(seen, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(seen - times[:, None, None, None, None] * (found - latents), latents, atol=1e-5, rtol=1e-4)


def test_a_clip_shows_another_of_its_own_scene_only() -> None:
    scenes, draws = torch.tensor([0, 0, 0, 3, 4, 4]), torch.Generator().manual_seed(0)
    places = torch.stack([shown_places(scenes, 1.0, draws) for _ in range(200)])
    assert (scenes[places] == scenes).all()
    assert (places[:, 3] == 3).all() and (places[:, [0, 1, 2, 4, 5]] != torch.tensor([0, 1, 2, 4, 5])).all()
    assert {tuple(row) for row in places[:, :3].tolist()} >= {(1, 0, 0), (2, 2, 1)}
    some = torch.stack([shown_places(scenes, 0.25, draws) for _ in range(400)])
    assert 0.18 < (some[:, 0] != 0).float().mean() < 0.32
    assert torch.equal(shown_places(scenes, 0.0, draws), torch.arange(6))


@given(st.floats(0.2, 8.0))
def test_times_have_the_distribution_they_are_said_to_have(shift: float) -> None:
    times = sample_times(4000, torch.Generator().manual_seed(1), shift=shift)
    assert ((times > 0) & (times < 1)).all()
    logits = torch.logit(times.double() / (shift - (shift - 1) * times.double()))
    assert abs(logits.mean()) < 0.06 and abs(logits.std() - 1) < 0.05
    fixed = fixed_times(9, shift=shift)
    assert (fixed.diff() > 0).all() and fixed[4] == pytest.approx(shift_times(torch.tensor(0.5), shift).item(), rel=1e-5)
    counts = torch.bucketize(times, (fixed[1:] + fixed[:-1]) / 2).bincount(minlength=9)
    assert counts.min() > 4000 / 9 * 0.6


def test_an_impossible_shift_is_refused() -> None:
    with pytest.raises(InputError, match="shift 0 is impossible"):
        fixed_times(3, shift=0.0)


def test_fixed_noise_depends_on_the_name_alone() -> None:
    state = torch.get_rng_state()
    first = fixed_noise((4, 3), "clip-1")
    assert torch.equal(first, fixed_noise((4, 3), "clip-1")) and not torch.equal(first, fixed_noise((4, 3), "clip-2"))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_time_per_token_is_the_time_per_video() -> None:
    adapter, inputs = adapted(), tiny_inputs()
    times = inputs["timestep"] / 1000
    outputs = [
        predict_velocity(
            adapter.transformer,
            inputs["hidden_states"],
            model_times(times, inputs["hidden_states"], (1, 2, 2), per_token=per_token),
            inputs["encoder_hidden_states"],
            torch.tensor([[0.4, 0.1], [0.2, 0.3]]),
            torch.float32,
        )
        for per_token in (False, True)
    ]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(outputs[0], predict(adapter.transformer, inputs, [[0.4, 0.1], [0.2, 0.3]]), atol=1e-5, rtol=1e-4)


def test_latents_are_what_the_pipeline_decodes(pipe: WanPipeline, tmp_path: Path) -> None:
    encoder = LatentEncoder(pipe.vae, TensorCache(tmp_path))
    latents = encoder.encode(clip())
    assert latents.shape == (16, 2, 2, 3) and latents.dtype == torch.float32
    with torch.no_grad():
        video = torch.from_numpy(clip()).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        raw = pipe.vae.encode(video).latent_dist.mode()
        mean, inverse_std = (
            torch.tensor(pipe.vae.config.latents_mean).view(1, 16, 1, 1, 1),
            1.0 / torch.tensor(pipe.vae.config.latents_std).view(1, 16, 1, 1, 1),
        )
    torch.testing.assert_close(latents[None] / inverse_std + mean, raw, atol=1e-5, rtol=1e-4)


def test_text_is_what_the_pipeline_embeds(pipe: WanPipeline, tmp_path: Path) -> None:
    encoder = TextEncoder(pipe, TensorCache(tmp_path), max_length=20)
    for caption in ("a red ball", "a much longer caption about a red ball and a blue box", ""):
        own = encoder.embedding(caption)
        with torch.no_grad():
            expected, _ = pipe.encode_prompt(caption, do_classifier_free_guidance=False, max_sequence_length=20)
        assert torch.equal(pad_text(own, 20), expected[0])
        assert own.shape[0] == len(pipe.tokenizer(caption, truncation=True, max_length=20).input_ids)


def test_only_what_changed_is_computed_again(pipe: WanPipeline, tmp_path: Path) -> None:
    loads: list[str] = []

    def load(name: str, seed: int) -> np.ndarray:
        loads.append(name)
        return clip(seed)

    def both(encoder: LatentEncoder, second: str = "b") -> list[torch.Tensor]:
        return [encoder.latents("a", lambda: load("a", 0)), encoder.latents(second, lambda: load(second, 1))]

    cache = TensorCache(tmp_path)
    first = both(LatentEncoder(pipe.vae, cache))
    again = both(LatentEncoder(pipe.vae, cache))
    assert loads == ["a", "b"] and all(torch.equal(p, q) for p, q in zip(first, again, strict=True))
    both(LatentEncoder(pipe.vae, cache), second="b-changed")
    assert loads == ["a", "b", "b-changed"]
    other = copy.deepcopy(pipe.vae)
    with torch.no_grad():
        next(other.parameters()).flatten()[0] += 0.01
    both(LatentEncoder(other, cache))
    both(LatentEncoder(copy.deepcopy(pipe.vae).to(torch.bfloat16), cache))
    assert loads == ["a", "b", "b-changed", "a", "b", "a", "b"]


def test_text_keys_see_every_input(pipe: WanPipeline, tmp_path: Path) -> None:
    cache = TensorCache(tmp_path)
    encoder, longer = TextEncoder(pipe, cache, max_length=20), TextEncoder(pipe, cache, max_length=21)
    assert len({encoder.key("a"), encoder.key("b"), longer.key("a")}) == 3
    assert encoder.key("a") == TextEncoder(pipe, cache, max_length=20).key("a")
    assert cache_key({"x": "1"}) != cache_key({"x": 1}) != cache_key({"y": 1})


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign"])
def test_a_damaged_file_is_noticed_and_replaced(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    cache, truth = TensorCache(tmp_path), torch.arange(12.0).view(3, 4)
    cache.write("ab12", truth)
    path = cache.path("ab12")
    whole = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(whole[:-3])
    elif damage == "flipped":
        whole[-2] ^= 1
        path.write_bytes(whole)
    else:
        path.write_bytes(b"something else")
    with caplog.at_level(logging.WARNING, logger="stopdown.cache"):
        assert cache.read("ab12") is None
    assert "is damaged" in caplog.text
    assert torch.equal(cache.remember("ab12", lambda: truth), truth)
    assert torch.equal(cache.remember("ab12", lambda: pytest.fail("computed again")), truth)


@given(st.sampled_from([torch.float32, torch.bfloat16, torch.int64]), st.lists(st.integers(0, 4), max_size=3))
def test_tensors_come_back_bit_for_bit(dtype: torch.dtype, shape: list[int]) -> None:
    tensor = (torch.randn(shape) * 100).to(dtype)
    with tempfile.TemporaryDirectory() as folder:
        cache = TensorCache(Path(folder))
        cache.write("cd34", tensor)
        back = cache.read("cd34")
    assert back.dtype == dtype and torch.equal(back, tensor)


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        TensorCache(tmp_path).write("ab12", torch.zeros(2))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_module_digests_tell_weights_and_dtypes_apart() -> None:
    first = torch.nn.Linear(3, 2)
    own = module_digest(first)
    assert module_digest(first.double()) != own
    assert module_digest(first.float()) == own
    with torch.no_grad():
        first.bias[1] += 1e-3
    assert module_digest(first) != own


def test_clips_that_the_autoencoder_cannot_take_are_refused(pipe: WanPipeline, tmp_path: Path) -> None:
    encoder = LatentEncoder(pipe.vae, TensorCache(tmp_path))
    for frames in (clip(frames=4), clip()[:, :12]):
        with pytest.raises(InputError, match=r"does not fit the autoencoder; give 4n \+ 1 frames"):
            encoder.encode(frames)
