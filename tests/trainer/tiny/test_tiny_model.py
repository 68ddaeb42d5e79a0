"""The bundled backbone: what is shipped, and the laws of what trains it."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel
from transformers import AutoTokenizer

from scenes.errors import InputError
from scenes.palette import BACKGROUNDS, COLORS, to_bytes
from trainer.tiny.export import DIGEST, folder_digest
from trainer.tiny.quality.quality import HEADINGS, QualityPrompt, drawn_prompts, kept, look, read_prompt
from trainer.tiny.shared.augmentation import TURNS, Turn
from trainer.tiny.shared.clips import Clips, Entry
from trainer.tiny.shared.config import SHIPPED, Optimizing, Phase, TextSettings, TinySettings, TransformerSettings, VaeSettings
from trainer.tiny.shared.train_stage import StageValidation, load_average, stage_loop, train_stage
from trainer.tiny.stages import TinyWork
from trainer.tiny.transformer.latents import encode_world
from trainer.tiny.transformer.text import HELD_TOKENS, tokenize
from trainer.tiny.transformer.tokenizer import build_tokenizer, count_words, drawn_captions
from trainer.tiny.transformer.transformer_stage import TransformerStage
from trainer.tiny.transformer.unpadded_flow import padding_bias, velocity
from trainer.tiny.vae.unchunked_vae import decode_latents, encode_moments
from trainer.tiny.vae.vae_stage import VaeStage, build_vae
from trainer.training.callbacks.metrics import FILE, read_events
from trainer.training.checkpoints.checkpoint import read_latest
from trainer.training.loop import Loop
from trainer.training.tasks.base import Task, TrainingProgress

MICRO = Optimizing(rate=1e-3, warmup=2, log_every=1, validate_every=100, average=0.9, compile=False)
MICRO_VAE = VaeSettings(
    encoder_dim=8,
    decoder_dim=8,
    latent_channels=4,
    phases=(
        Phase(frames=5, batch=1, steps=2, linear=True),
        Phase(frames=1, batch=2, steps=1),
        Phase(frames=5, batch=1, steps=3),
    ),
    code_windows=6,
    optimizing=MICRO,
)
MICRO_TRANSFORMER = TransformerSettings(
    heads=2,
    head_dim=12,
    layers=3,
    feed_forward=32,
    time_features=16,
    batch=3,
    steps=6,
    turns=2,
    frames=((5, 0.5), (1, 0.5)),
    text=TextSettings(width=16, layers=1, heads=2),
    optimizing=MICRO,
)
CAPTIONS = (
    "A red cube moves from left to right in front of a dark grey backdrop.",
    "A view of a teal cone on the left and a pink sphere gliding quickly towards the upper right, before an ivory background.",
    "Against a lavender backdrop, a lime torus flies upwards while spinning and a navy cube flies away from the camera.",
)


def moving_square(prompt: QualityPrompt, frames: int = 9) -> np.ndarray:
    """Return frames [T, 64, 64, 3] of a square that does as a caption says."""
    named = BACKGROUNDS[prompt.background]
    linear = np.broadcast_to(np.linspace(named.top, named.bottom, 64)[None, :, None, :], (frames, 64, 64, 3)).copy()
    x_step, y_step = HEADINGS[prompt.heading]
    for index in range(frames):
        x, y = (int(32 + 2.5 * step * (index - frames // 2)) for step in (x_step, y_step))
        linear[index, y - 8 : y + 8, x - 8 : x + 8] = COLORS[prompt.color]
    return to_bytes(linear)


@pytest.fixture(scope="module")
def toy_clips() -> Clips:
    """Return decoded clips as the stages take them: squares, two splits, 5 and 9 frames."""
    entries, videos, start = [], [], 0
    for index, prompt in enumerate(drawn_prompts(6)):
        frames = 9 if index % 2 else 5
        videos.append(moving_square(prompt, frames))
        split = "validation" if index == 5 else "train"
        entries.append(Entry(f"clip-{index}", start, frames, prompt.text, split, {}))
        start += frames
    return Clips(tuple(entries), np.concatenate(videos))


def test_the_shipped_folder_loads_with_plain_diffusers_and_samples() -> None:
    pipe = WanPipeline.from_pretrained(SHIPPED)
    pipe.set_progress_bar_config(disable=True)
    made = pipe(
        CAPTIONS[0],
        height=64,
        width=64,
        num_frames=9,
        num_inference_steps=2,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).frames
    assert made.shape == (1, 9, 64, 64, 3)
    assert np.isfinite(made).all() and made.std() > 0.01


def test_the_shipped_folder_is_the_one_its_digest_names_and_small() -> None:
    assert (SHIPPED / DIGEST).read_text().strip() == folder_digest(SHIPPED)
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) < 12e6


def test_the_shipped_transformer_is_of_the_stated_size() -> None:
    model = WanTransformer3DModel.from_pretrained(SHIPPED, subfolder="transformer")
    assert 2e6 <= sum(parameter.numel() for parameter in model.parameters()) <= 5e6
    assert model.config.num_layers // 3 >= 2


@pytest.mark.parametrize("text", CAPTIONS)
@pytest.mark.parametrize("turn", TURNS)
def test_turning_twice_changes_nothing(turn: Turn, text: str) -> None:
    frames = np.random.default_rng(0).integers(256, size=(5, 4, 4, 3), dtype=np.uint8)
    assert turn.caption(turn.caption(text)) == text
    np.testing.assert_array_equal(turn.frames(turn.frames(frames)), frames)


@pytest.mark.parametrize("heading", HEADINGS)
@pytest.mark.parametrize("turn", TURNS)
def test_a_turned_caption_says_where_the_turned_clip_goes(turn: Turn, heading: str) -> None:
    prompt = QualityPrompt(f"A red cube moves {heading} in front of a dark grey backdrop.", "red", heading, "dark grey")
    turned = read_prompt(turn.caption(prompt.text))
    assert turned is not None
    x, y = HEADINGS[heading]
    x, y = (-x if turn.mirrored else x, y)
    x, y = (-x, -y) if turn.reversed else (x, y)
    assert HEADINGS[turned.heading] == (x + 0.0, y + 0.0)
    seen = look(turn.frames(moving_square(prompt)), turned)
    assert seen.color and seen.heading


def test_quality_refuses_what_is_not_there() -> None:
    prompt = QualityPrompt(CAPTIONS[0], "red", "from left to right", "dark grey")
    frames = moving_square(prompt)
    assert look(frames, prompt).flicker < 1
    assert not look(frames, QualityPrompt(prompt.text, "blue", prompt.heading, prompt.background)).color
    assert not look(frames, QualityPrompt(prompt.text, "red", "upwards", prompt.background)).heading
    assert not look(frames[:1].repeat(9, axis=0), prompt).heading
    assert not look(np.full_like(frames, 60), prompt).found
    noise = np.random.default_rng(0).integers(-9, 10, size=frames.shape)
    assert look(np.clip(frames.astype(int) + noise, 0, 255).astype(np.uint8), prompt).flicker > 3


@pytest.mark.parametrize("halved_in_time", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("frames", [1, 5, 9])
def test_whole_clips_give_what_diffusers_gives_in_chunks(frames: int, halved_in_time: tuple[bool, bool]) -> None:
    vae = build_vae(MICRO_VAE.model_copy(update={"halved_in_time": halved_in_time}))
    with torch.no_grad():  # residual branches begin at zero and would not be seen
        for parameter in vae.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    video = torch.rand(2, 3, frames, 32, 32, generator=torch.Generator().manual_seed(frames)) * 2 - 1
    with torch.no_grad():
        posterior = vae.encode(video).latent_dist
        moments = encode_moments(vae, video)
        torch.testing.assert_close(moments.chunk(2, dim=1)[0], posterior.mean, atol=1e-5, rtol=1e-4)
        expected = vae.decode(posterior.mean).sample
        torch.testing.assert_close(decode_latents(vae, posterior.mean).clamp(-1, 1), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("padded", [64, 512])
def test_counted_padding_is_padding(padded: int) -> None:
    generator = torch.Generator().manual_seed(padded)
    model = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=16,
        freq_dim=16,
        ffn_dim=32,
        num_layers=3,
    )
    lengths = torch.tensor([1, 20, 40])
    text = torch.randn(3, padded, 16, generator=generator)
    for row, length in enumerate(lengths):
        text[row, length:] = 0
    noisy = torch.randn(3, 4, 3, 8, 8, generator=generator)
    times = torch.tensor([3.0, 500.0, 990.0])
    with torch.no_grad():
        expected = model(noisy, times, text, return_dict=False)[0]
        made = velocity(model, noisy, times, text[:, :48], padding_bias(lengths, 48, padded))
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-4)


def test_directions_of_the_same_words_are_tokens_of_their_own() -> None:
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED / "tokenizer")
    spoken = [
        tokenizer.convert_ids_to_tokens(tokenizer(f"A Red cube moves {way}, spinning.").input_ids)
        for way in ("from left to right", "from right to left", "from right to the left", "towards the upper left")
    ]
    said = [[token for token in tokens if "left" in token or "right" in token] for tokens in spoken]
    assert said[:2] == [["▁from▁left▁to▁right"], ["▁from▁right▁to▁left"]]
    assert said[2:] == [["▁right", "▁left"], ["▁left"]]
    assert all(tokens[:4] == ["▁a", "▁red", "▁cube", "▁moves"] for tokens in spoken)


def test_the_tokenizer_knows_every_word_of_our_captions_and_spells_the_rest() -> None:
    captions = list(drawn_captions(4))
    tokenizer = build_tokenizer(count_words(captions))
    known = set(tokenizer.get_vocab())
    for caption in captions:
        words = tokenizer.convert_ids_to_tokens(tokenizer(caption).input_ids)
        assert all(word.startswith("▁") for word in words[:-1]) and words[-1] == "</s>"
        assert tokenizer.decode(tokenizer(caption).input_ids, skip_special_tokens=True).split()[0] == caption.lower().split()[0]
    spelled = tokenizer("crimson ж").input_ids
    assert tokenizer.unk_token_id not in spelled and "▁crimson" not in known and len(spelled) > 7
    ids, lengths = tokenize(tokenizer, ["", captions[0] * 9])
    assert lengths.tolist() == [1, HELD_TOKENS - 1] and ids[1, HELD_TOKENS - 2] == tokenizer.eos_token_id


class Interrupting:
    """A callback that asks a run to stop, as Ctrl-C does, so that a step is its last."""

    logs = True

    def __init__(self, last: int) -> None:
        self.last = last

    def started(self, task: Task, step: int, steps: int) -> None:
        """Nothing is asked before a step is made."""

    def stepped(self, task: Task, progress: TrainingProgress) -> None:
        """Ask during the step before: the loop makes one more."""
        if progress.step == self.last - 1:
            signal.raise_signal(signal.SIGINT)

    def finished(self, task: Task, step: int) -> None:
        """Nothing is open."""


def state_after(make: Callable[[Path], Loop], folder: Path, *stops: int) -> dict[str, torch.Tensor]:
    """Train to the end, interrupted after some steps; return parameters, averages and what the optimizer remembers."""
    for stop in stops:
        loop = make(folder)
        loop.watch(Interrupting(stop))
        with pytest.raises(KeyboardInterrupt):
            loop.run()
        assert loop.step == stop
    loop = make(folder)
    assert loop.run() == loop.settings.steps
    latest = read_latest(folder)
    assert latest is not None and latest.averaged is not None
    kept = {f"{name} {key}": torch.as_tensor(v) for name, values in latest.optimizer.items() for key, v in values.items()}
    return {**latest.parameters, **{f"average {name}": value for name, value in latest.averaged.items()}, **kept}


def assert_same_state(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_the_autoencoder_resumes_bit_for_bit(toy_clips: Clips, tmp_path: Path) -> None:
    def make(folder: Path) -> Loop:
        return stage_loop(VaeStage(MICRO_VAE, toy_clips), MICRO, folder)

    whole = state_after(make, tmp_path / "whole")
    assert any("momentum_buffer" in name for name in whole) and any("exp_avg" in name for name in whole)
    assert_same_state(whole, state_after(make, tmp_path / "parts", 2, 4))


def test_fine_tuning_the_decoder_leaves_the_latents(toy_clips: Clips, tmp_path: Path) -> None:
    start = build_vae(MICRO_VAE)
    video = torch.rand(1, 3, 5, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        moments = encode_moments(start, video)
        made = decode_latents(start, moments[:, :4])
    train_stage(VaeStage(MICRO_VAE, toy_clips, start), MICRO, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(encode_moments(start, video), moments, atol=0, rtol=0)
        assert not torch.equal(decode_latents(start, moments[:, :4]), made)


def test_the_transformer_resumes_bit_for_bit(toy_clips: Clips, tmp_path: Path) -> None:
    vae = build_vae(MICRO_VAE)
    latents = encode_world(vae, toy_clips, tmp_path / "latents", "toy", turns=2)
    tokenizer = build_tokenizer(count_words(CAPTIONS))

    def make(folder: Path) -> Loop:
        return stage_loop(TransformerStage(MICRO_TRANSFORMER, latents, tokenizer, vae), MICRO, folder)

    whole = state_after(make, tmp_path / "whole")
    assert_same_state(whole, state_after(make, tmp_path / "parts", 2, 4))


def test_training_lowers_the_loss_and_is_validated_with_the_average(toy_clips: Clips, tmp_path: Path) -> None:
    settings = MICRO_VAE.model_copy(update={"phases": (Phase(frames=5, batch=2, steps=60),)})
    loop = stage_loop(VaeStage(settings, toy_clips), MICRO.model_copy(update={"rate": 5e-3}), tmp_path)
    validation = loop.callbacks[-1]
    assert isinstance(validation, StageValidation)
    before = {name: parameter.detach().clone() for name, parameter in loop.parameters.items()}
    first = validation.measure(loop.task, 0)["psnr_db"]
    for name, parameter in loop.parameters.items():
        assert torch.equal(parameter, before[name]), name
    loop.run()
    events = read_events(tmp_path / FILE)
    assert [event.kind for event in events] == ["train"] * 60 + ["validation"]
    assert {"loss", "pixels", "divergence", "learning_rate"} <= events[0].values.keys()
    assert (events[-1].values["psnr_db"] or 0) > first + 1
    assert (tmp_path / "grid-000060.png").is_file()


def test_a_stage_asked_to_stop_in_its_last_measuring_is_whole_and_what_follows_does_not_begin(
    toy_clips: Clips, tmp_path: Path
) -> None:
    class Asked(VaeStage):
        def validate(self, step: int, folder: Path) -> dict[str, float]:
            signal.raise_signal(signal.SIGTERM)
            return {"psnr_db": 0.0}

    settings = MICRO_VAE.model_copy(update={"phases": (Phase(frames=1, batch=1, steps=2),)})
    with pytest.raises(KeyboardInterrupt):
        train_stage(Asked(settings, toy_clips), MICRO, tmp_path)
    assert load_average(VaeStage(settings, toy_clips).vae, tmp_path) == 2
    work = TinyWork(tmp_path, TinySettings(), lambda: True)
    with pytest.raises(KeyboardInterrupt):
        work.train(VaeStage(settings, toy_clips), MICRO, tmp_path / "next")
    assert not (tmp_path / "next").exists()


def test_a_checkpoint_of_an_earlier_version_is_not_begun_anew(toy_clips: Clips, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").touch()
    with pytest.raises(InputError, match=r"checkpoint\.pt is of an earlier version.*move the file away"):
        stage_loop(VaeStage(MICRO_VAE, toy_clips), MICRO, tmp_path)


def test_latents_are_made_once_and_their_beginning_is_the_shorter_clips(toy_clips: Clips, tmp_path: Path) -> None:
    vae = build_vae(MICRO_VAE)
    first = encode_world(vae, toy_clips, tmp_path, "toy", turns=2)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = encode_world(vae, toy_clips, tmp_path, "toy", turns=2)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == times
    for one, other in itertools.zip_longest(first, again):
        np.testing.assert_array_equal(one.values, other.values)
    long = next(part for part in first if part.frames == 9)
    short = toy_clips.video(long.entries[0])[:5]
    with torch.no_grad():
        moments = encode_moments(vae, torch.from_numpy(short.copy()).permute(3, 0, 1, 2)[None].float() / 127.5 - 1)
    np.testing.assert_allclose(long.values[0, 0, :, :3], moments[0, :4].numpy(), atol=3e-2)


def test_work_made_under_other_settings_is_refused(tmp_path: Path) -> None:
    settings = TinySettings()
    work = TinyWork(tmp_path, settings, lambda: False)
    assert not work.finished("vae", settings.vae)
    (tmp_path / "vae").mkdir()
    work.finish("vae", settings.vae)
    assert work.finished("vae", settings.vae)
    with pytest.raises(InputError, match="give another --work folder"):
        work.finished("vae", settings.vae.model_copy(update={"kl": 0.5}))


def test_statistics_of_the_shipped_autoencoder_are_its_own() -> None:
    vae = AutoencoderKLWan.from_pretrained(SHIPPED, subfolder="vae")
    assert len(vae.config.latents_mean) == len(vae.config.latents_std) == vae.config.z_dim
    assert min(vae.config.latents_std) > 0 and np.std(vae.config.latents_std) > 0


def test_what_survives_the_autoencoder_is_counted_and_ranked() -> None:
    before = [1.0, 2.0, None, 3.0, 4.0, 5.0, 6.0]
    same = kept(before, [2.0, 4.0, 5.0, 9.0, 10.0, 11.0, None])
    assert (same["read_before"], same["read_in_both"]) == (6.0, 5.0) and same["rank"] == pytest.approx(1.0)
    assert kept(before, [5.0, 4.0, 1.0, 3.0, 2.0, 1.0, None])["rank"] == pytest.approx(-1.0)
    assert kept(before, [None] * 7)["rank"] is None
