"""What a training step of the tiny backbone costs on one thread: number format, compiling, batch.

    python benchmarks/tiny_step.py [transformer | autoencoder] [--compile] [--batch 16] [--frames 9] [--profile]

Random inputs, nothing to prepare. CPU seconds of forward and backward, the least of some steps, for each number format.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from unittest.mock import patch

import torch
from torch import Tensor

from trainer.tiny.shared.config import TinySettings
from trainer.tiny.transformer.text import HELD_TOKENS, build_text_encoder, embed
from trainer.tiny.transformer.transformer_stage import TIMES, build_transformer
from trainer.tiny.transformer.unpadded_flow import padding_bias, velocity
from trainer.tiny.vae.unchunked_vae import decode_latents, encode_moments
from trainer.tiny.vae.vae_stage import begun_vae
from trainer.weights import precision

WORDS, LENGTH = 1200, 25  # of a caption


def transformer(batch: int, frames: int, *, compiled: bool) -> Callable[[], Tensor]:
    """Return what computes a loss of the transformer and the text encoder."""
    settings = TinySettings()
    model = build_transformer(settings.transformer, settings.vae.latent_channels)
    encoder = build_text_encoder(settings.transformer.text, WORDS)
    latents = torch.randn(batch, settings.vae.latent_channels, settings.vae.latent_frames(frames), 8, 8)
    ids, lengths = torch.randint(2, WORDS, (batch, HELD_TOKENS)), torch.full((batch,), LENGTH)
    bias, times = padding_bias(lengths, HELD_TOKENS, 128), torch.rand(batch) * TIMES
    forward = torch.compile(velocity, dynamic=False) if compiled else velocity

    def loss() -> Tensor:
        with precision.autocast():
            made = forward(model, latents, times, embed(encoder, ids, lengths), bias)
        return (made.float() - latents).square().mean()

    return loss


def autoencoder(batch: int, frames: int, *, compiled: bool) -> Callable[[], Tensor]:
    """Return what computes an error of the autoencoder, encoder included."""
    vae, video = begun_vae(TinySettings().vae), torch.rand(batch, 3, frames, 64, 64) * 2 - 1

    def error() -> Tensor:
        with precision.autocast():
            made = decode_latents(vae, encode_moments(vae, video).chunk(2, dim=1)[0])
        return (made.float() - video).abs().mean()

    return torch.compile(error, dynamic=False) if compiled else error


def least_cpu_s(loss: Callable[[], Tensor], steps: int) -> float:
    """Return the CPU seconds of the quickest of some steps; the first, which compiles, does not count."""
    spent = []
    for _ in range(steps + 1):
        began_s = time.process_time()
        loss().backward()
        spent.append(time.process_time() - began_s)
    return min(spent[1:])


def main() -> None:
    """Measure both formats and print what a step costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("transformer", "autoencoder"), default="transformer")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    made = {"transformer": transformer, "autoencoder": autoencoder}[given.what]
    for pays in (False, True):
        with patch.object(precision, "bfloat16_pays", lambda device, pays=pays: pays):
            loss = made(given.batch, given.frames, compiled=given.compile)
            spent_s = least_cpu_s(loss, given.steps)
            name = "bfloat16" if pays else "float32"
            print(f"{given.what} {name}: {spent_s:.2f} CPU s a step, {spent_s / given.batch:.3f} a clip", flush=True)
            if given.profile:
                with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
                    loss().backward()
                print(seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=12))


if __name__ == "__main__":
    main()
