"""The transformer's stage: rectified flow on cached latents, the text encoder trained with it.

Shapes: B videos, C latent channels, T latent frames, H rows, W columns, L text tokens, X text width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from trainer.tiny.shared.augmentation import TURNS
from trainer.tiny.shared.config import SHIPPED, Phase, TransformerSettings
from trainer.tiny.shared.start import take_up
from trainer.tiny.transformer.latents import Latents, decode_normalised, latent_frames, latent_shape
from trainer.tiny.transformer.text import build_text_encoder, embed, tokenize
from trainer.tiny.transformer.unpadded_flow import padding_bias, velocity
from trainer.training.tasks.objective import fixed_noise, fixed_times, mix, shift_times
from trainer.weights.precision import autocast

TIMES = 1000  # the timesteps of Wan's schedulers
HELD_OUT, GRID = 96, 12


class TransformerStage:
    """Trains a WanTransformer3DModel and a UMT5EncoderModel together."""

    def __init__(
        self,
        settings: TransformerSettings,
        latents: Sequence[Latents],
        tokenizer: PreTrainedTokenizerFast,
        vae: AutoencoderKLWan,
    ) -> None:
        self.settings, self.tokenizer, self.vae = settings, tokenizer, vae
        self.latents = {part.frames: part for part in latents}
        self.phases: tuple[Phase, ...] = (Phase(frames=settings.frames[0][0], batch=settings.batch, steps=settings.steps),)
        self.transformer = build_transformer(settings, int(vae.config.z_dim))
        self.text_encoder = build_text_encoder(settings.text, len(tokenizer))
        if settings.start == "shipped":
            take_up(self.transformer, self.text_encoder, tokenizer, SHIPPED)
        self.module: nn.Module = nn.ModuleDict({"transformer": self.transformer, "text_encoder": self.text_encoder})
        self.places = {n: self._places(n, "train") for n, _ in settings.frames}
        self.tokens = {part.frames: self._tokens(part) for part in latents}
        self.empty = tokenize(tokenizer, [""])
        self.velocity = torch.compile(velocity, dynamic=False) if settings.optimizing.compile else velocity

    def _places(self, frames: int, split: str) -> list[tuple[int, int]]:
        """Return (length, position) of clips of at least so many frames; a causal latent's beginning is a shorter clip's."""
        return [
            (length, position)
            for length, part in sorted(self.latents.items())
            if length >= frames
            for position, entry in enumerate(part.entries)
            if entry.split == split
        ]

    def _tokens(self, part: Latents) -> list[tuple[Tensor, Tensor]]:
        turns = TURNS[: part.values.shape[1]]
        return [tokenize(self.tokenizer, [turn.caption(entry.caption) for entry in part.entries]) for turn in turns]

    def _take(self, places: Sequence[tuple[int, int]], turns: Sequence[int], frames: int) -> dict[str, Tensor]:
        """Return latents [B, C, T, H, W], tokens [B, L] and lengths [B] of clips at places, turned."""
        held = latent_frames(self.vae, frames)
        latents, covered, ids, lengths = [], [], [], []
        for (length, position), turn in zip(places, turns, strict=True):
            latents.append(self.latents[length].values[position, turn, :, :held])
            covered.append(self.latents[length].covered[position, turn, None, :held])
            tokens, counts = self.tokens[length][turn]
            ids.append(tokens[position])
            lengths.append(counts[position])
        stacked = torch.from_numpy(np.stack(latents).astype(np.float32))
        return {
            "latents": stacked,
            "covered": torch.from_numpy(np.stack(covered)),
            "ids": torch.stack(ids),
            "lengths": torch.stack(lengths),
        }

    def batch(self, phase: Phase, rng: np.random.Generator) -> Mapping[str, Tensor]:
        """Return the tensors of a step: clips of one length, some captions left out, times, and the padded length."""
        choices, shares = zip(*self.settings.frames, strict=True)
        frames = int(rng.choice(choices, p=np.array(shares) / sum(shares)))
        pool = self.places[frames]
        places = [pool[int(index)] for index in rng.integers(len(pool), size=phase.batch)]
        turns = [int(rng.integers(self.latents[length].values.shape[1])) for length, _ in places]
        made = self._take(places, turns, frames)
        left_out = torch.from_numpy(rng.random(phase.batch) < self.settings.empty)
        made["ids"] = torch.where(left_out[:, None], self.empty[0], made["ids"])
        made["lengths"] = torch.where(left_out, self.empty[1], made["lengths"])
        made["padded"] = torch.from_numpy(rng.choice(self.settings.padded, size=phase.batch))
        # Strata instead of independent draws: the same distribution with less noise in the gradient.
        quantile = (torch.arange(phase.batch) + torch.from_numpy(rng.random(phase.batch))) / phase.batch
        made["times"] = shift_times(torch.special.ndtri(quantile).sigmoid().float(), self.settings.shift)
        made["noise"] = torch.from_numpy(rng.standard_normal(tuple(made["latents"].shape), dtype=np.float32))
        return made

    def loss(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean squared error of the velocity, weighted where things are."""
        squared = self.squared_errors(batch)
        weights = 1 + (self.settings.things - 1) * batch["covered"].float()
        return (squared * weights / weights.mean()).mean(), {"plain": squared.detach().mean()}

    def squared_errors(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the squared error of the velocity, the mean over channels [B, 1, T, H, W]."""
        latents, noise, times = batch["latents"], batch["noise"], batch["times"]
        bias = padding_bias(batch["lengths"], batch["ids"].shape[1], batch["padded"])
        with autocast():
            text = embed(self.text_encoder, batch["ids"], batch["lengths"])
            made = self.velocity(self.transformer, mix(latents, noise, times), times * TIMES, text, bias)
        return (made.float() - (noise - latents)).square().mean(1, keepdim=True)

    @torch.no_grad()
    def validate(self, step: int, folder: Path) -> dict[str, float]:
        """Return the loss of held-out clips, and draw samples of held-out captions."""
        frames = self.settings.frames[0][0]
        measured = self.held_out_loss()
        places = self._places(frames, "validation")[:HELD_OUT]
        spread = places[:: max(1, len(places) // GRID)][:GRID]
        captions = [self.latents[length].entries[position].caption for length, position in spread]
        videos = self.sample(captions, frames, seed=0)
        save_samples(videos, folder / f"samples-{step:06d}.png")
        (folder / f"samples-{step:06d}.txt").write_text("\n".join(captions) + "\n")
        return measured

    @torch.no_grad()
    def held_out_loss(self) -> dict[str, float]:
        """Return the loss of held-out clips at fixed times and noise: of all that is seen, and of things."""
        frames = self.settings.frames[0][0]
        places = self._places(frames, "validation")[:HELD_OUT]
        batch = self._take(places, [0] * len(places), frames)
        names = [self.latents[length].entries[position].clip_id for length, position in places]
        batch["noise"] = torch.stack([fixed_noise(tuple(batch["latents"].shape[1:]), name) for name in names])
        batch["times"] = fixed_times(8, shift=self.settings.shift).repeat(len(names))[: len(names)]
        batch["padded"] = torch.full((len(names),), 512)
        squared, covered = self.squared_errors(batch), batch["covered"]
        return {"validation_loss": float(squared.mean()), "validation_loss_on_things": float(squared[covered].mean())}

    def sample(self, captions: Sequence[str], frames: int, seed: int) -> np.ndarray:
        """Return videos uint8 [B, T, H, W, 3] of captions by Euler steps with guidance, as the pipeline would make them."""
        latents = sample_latents(
            self.transformer,
            self.text_encoder,
            self.tokenizer,
            captions,
            shape=latent_shape(self.vae, frames),
            steps=self.settings.sampling_steps,
            guidance=self.settings.guidance,
            shift=self.settings.sampling_shift,
            seed=seed,
        )
        return decode_normalised(self.vae, latents)


def build_transformer(settings: TransformerSettings, channels: int) -> WanTransformer3DModel:
    """Return the transformer before training: gates near zero, so that each block begins as a small change."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(settings.optimizing.seed)
        model = WanTransformer3DModel(
            patch_size=(1, settings.patch, settings.patch),
            num_attention_heads=settings.heads,
            attention_head_dim=settings.head_dim,
            in_channels=channels,
            out_channels=channels,
            text_dim=settings.text.width,
            freq_dim=settings.time_features,
            ffn_dim=settings.feed_forward,
            num_layers=settings.layers,
            cross_attn_norm=True,
        )
        for block in model.blocks:
            block.scale_shift_table.zero_()
            block.scale_shift_table[:, [2, 5]] = 0.2
        model.condition_embedder.time_proj.weight.mul_(0.2)
        model.condition_embedder.time_proj.bias.zero_()
        model.proj_out.weight.mul_(0.1)
        model.proj_out.bias.zero_()
    return model


@torch.no_grad()
def sample_latents(
    transformer: WanTransformer3DModel,
    text_encoder: UMT5EncoderModel,
    tokenizer: PreTrainedTokenizerFast,
    captions: Sequence[str],
    *,
    shape: tuple[int, int, int, int],
    steps: int,
    guidance: float,
    shift: float,
    seed: int,
) -> Tensor:
    """Return normalised latents [B, C, T, H, W] by Euler steps of the flow with classifier-free guidance."""
    both = [*captions, *([""] * len(captions))]
    ids, lengths = tokenize(tokenizer, both)
    bias = padding_bias(lengths, ids.shape[1], 512)
    x = torch.randn((len(captions), *shape), generator=torch.Generator().manual_seed(seed))
    times = shift_times(torch.linspace(1, 0, steps + 1), shift)
    with autocast():
        text = embed(text_encoder, ids, lengths)
        for now, then in pairwise(times):
            doubled = torch.cat([x, x])
            made = velocity(transformer, doubled, (now * TIMES).expand(len(both)), text, bias).float()
            named, unnamed = made.chunk(2)
            x = x + (then - now) * (unnamed + guidance * (named - unnamed))
    return x


def save_samples(videos_BTHW3: np.ndarray, path: Path) -> None:
    """Draw videos in two columns, every second frame from left to right, doubled in size."""
    rows = [np.concatenate(list(video[::2]), axis=1) for video in videos_BTHW3]
    rows += [np.zeros_like(rows[0])] * (len(rows) % 2)
    wide = [np.concatenate(pair, axis=1) for pair in zip(rows[::2], rows[1::2], strict=True)]
    Image.fromarray(np.concatenate(wide, axis=0).repeat(2, 0).repeat(2, 1)).save(path)
