"""Turning and cutting the bundled autoencoder's latents."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan

from trainer.tiny.shared.clips import Clips, Entry
from trainer.tiny.shared.config import VaeSettings
from trainer.tiny.vae.latent_pca import Axes, measured_axes, with_latent_pca
from trainer.tiny.vae.unchunked_vae import decode_latents, encode_moments
from trainer.tiny.vae.vae_stage import build_vae, to_video

CHANNELS = 4


@pytest.fixture
def vae() -> AutoencoderKLWan:
    """Return an autoencoder whose first latent channel is worth far more than its last."""
    made = build_vae(VaeSettings(encoder_dim=8, decoder_dim=8, latent_channels=CHANNELS))
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
        made.decoder.conv_in.weight.mul_(torch.tensor([8.0, 2.0, 0.5, 0.01]).view(1, -1, 1, 1, 1))
    return made


@pytest.fixture
def clips() -> Clips:
    """Return six clips of 9 frames of noise at several scales."""
    rng = np.random.default_rng(0)
    frames = np.kron(rng.integers(0, 256, size=(54, 8, 8, 3)), np.ones((1, 4, 4, 1))).astype(np.uint8)
    return Clips(tuple(Entry(f"clip-{i}", 9 * i, 9, "", "train", {}) for i in range(6)), frames)


def test_axes_come_by_their_worth_and_lead_there_and_back(vae: AutoencoderKLWan, clips: Clips) -> None:
    axes = measured_axes(vae, clips, CHANNELS)
    assert (axes.std_K.diff() <= 0).all() and axes.std_K[0] > 3 * axes.std_K[-1]
    torch.testing.assert_close(axes.to_KC @ axes.back_CK, torch.eye(CHANNELS), atol=1e-3, rtol=0)
    few = measured_axes(vae, clips, 2)
    torch.testing.assert_close(few.std_K, axes.std_K[:2])


def test_a_turned_autoencoder_is_the_same_autoencoder(vae: AutoencoderKLWan, clips: Clips) -> None:
    with torch.no_grad():
        vae.post_quant_conv.bias.zero_()
    # What is constant is exact but at a clip's borders, where convolutions meet zeros: here nothing is constant.
    axes = dataclasses.replace(measured_axes(vae, clips, CHANNELS), mean_C=torch.zeros(CHANNELS))
    small = with_latent_pca(vae, axes, spectrum=0.5, loudest=2.2)
    video = to_video(clips.video(clips.entries[0])[None])
    with torch.no_grad():
        before, after = (encode_moments(model, video).chunk(2, dim=1)[0] for model in (vae, small))
        torch.testing.assert_close(after, torch.einsum("kc,bcthw->bkthw", axes.to_KC, before), atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(decode_latents(small, after), decode_latents(vae, before), atol=5e-3, rtol=1e-3)


def test_cutting_loses_least_of_the_picture(vae: AutoencoderKLWan, clips: Clips) -> None:
    video = to_video(clips.video(clips.entries[1])[None])
    with torch.no_grad():
        whole = decode_latents(vae, encode_moments(vae, video).chunk(2, dim=1)[0])

    def lost(axes: Axes) -> float:
        small = with_latent_pca(vae, axes, spectrum=0.5, loudest=2.2)
        with torch.no_grad():
            made = decode_latents(small, encode_moments(small, video).chunk(2, dim=1)[0])
        return float((made - whole)[:, :, 4:, 8:-8, 8:-8].square().mean())

    axes = measured_axes(vae, clips, CHANNELS)
    last = slice(-2, None)
    worst = Axes(axes.mean_C, axes.to_KC[last], axes.back_CK[:, last], axes.std_K[last])
    assert lost(measured_axes(vae, clips, 2)) < 0.2 * lost(worst)


@pytest.mark.parametrize("spectrum", [0.0, 0.5, 1.0])
def test_normalised_latents_have_the_spectrum_asked_for(vae: AutoencoderKLWan, clips: Clips, spectrum: float) -> None:
    axes = measured_axes(vae, clips, 3)
    small = with_latent_pca(vae, axes, spectrum, loudest=2.0)
    assert small.config.z_dim == 3 and small.config.latents_mean == [0.0] * 3
    loudness = axes.std_K / torch.tensor(small.config.latents_std)
    torch.testing.assert_close(loudness, 2.0 * (axes.std_K / axes.std_K[0]) ** spectrum, rtol=1e-4, atol=0)
