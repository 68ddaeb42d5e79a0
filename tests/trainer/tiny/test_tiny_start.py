"""Beginning with what is shipped, and the weight of things in the loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from transformers import AutoTokenizer

from scenes.axes import AXES
from scenes.errors import InputError
from scenes.families import FAMILIES, draw_scene
from scenes.families.rules import center_px
from scenes.spec import Shot
from trainer.tiny import stages
from trainer.tiny.shared.augmentation import TURNS
from trainer.tiny.shared.config import SHIPPED, TextSettings, TinySettings, TransformerSettings, VaeSettings
from trainer.tiny.shared.coverage import covered_cells
from trainer.tiny.shared.start import take_up, widened
from trainer.tiny.transformer.latents import covered_latents
from trainer.tiny.transformer.text import build_text_encoder, embed, tokenize
from trainer.tiny.transformer.tokenizer import build_tokenizer, count_words
from trainer.tiny.transformer.transformer_stage import build_transformer
from trainer.tiny.vae.unchunked_vae import decode_latents, encode_moments
from trainer.tiny.vae.vae_stage import begun_vae

LAWS = {name: AXES[name].default_law for name in ("shutter", "aperture", "temperature")}
TEXT = "A red cube flies upwards."


@pytest.fixture(scope="module")
def vae() -> AutoencoderKLWan:
    return AutoencoderKLWan.from_pretrained(SHIPPED, subfolder="vae").float().eval()


def test_a_widened_autoencoder_keeps_its_latents_and_nearly_its_picture(vae: AutoencoderKLWan) -> None:
    wide = begun_vae(VaeSettings(start="shipped", latent_channels=29))
    video = torch.rand(1, 3, 5, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        mean, logvar = encode_moments(vae, video).chunk(2, dim=1)
        wide_mean, wide_logvar = encode_moments(wide, video).chunk(2, dim=1)
        torch.testing.assert_close(wide_mean[:, :24], mean)
        torch.testing.assert_close(wide_logvar[:, :24], logvar)
        assert wide_mean.shape[1] == 29 and wide_mean[:, 24:].std() > 1e-3, "the new channels have something to learn from"
        assert (decode_latents(wide, wide_mean) - decode_latents(vae, mean)).abs().mean() < 0.02
    assert len(wide.config.latents_std) == 29
    with pytest.raises(InputError, match="24 latent channels, 8 are asked for"):
        widened(vae, 8)


def test_a_transformer_begins_with_the_shipped_ones_blocks_and_words() -> None:
    tokenizer = build_tokenizer(count_words([TEXT, "A medium cone."]))
    settings = TransformerSettings(layers=7)
    model, encoder = build_transformer(settings, 29), build_text_encoder(settings.text, len(tokenizer))
    take_up(model, encoder, tokenizer, SHIPPED)
    shipped = WanTransformer3DModel.from_pretrained(SHIPPED, subfolder="transformer").float()
    for name, value in shipped.blocks.state_dict().items():
        assert torch.equal(model.blocks.state_dict()[name], value)
    assert list(model.config.patch_size) == [1, 1, 1] and model.config.in_channels == 29
    x = torch.randn(2, 320, 192, generator=torch.Generator().manual_seed(0))
    text, rotary = torch.randn(2, 8, 192), model.rope(torch.zeros(2, 29, 5, 8, 8))
    with torch.no_grad():
        assert torch.equal(model.blocks[6](x, text, torch.randn(2, 6, 192), rotary), x), "a block more changes nothing yet"
    ids, lengths = tokenize(tokenizer, [TEXT])
    old_ids, old_lengths = tokenize(AutoTokenizer.from_pretrained(SHIPPED / "tokenizer"), [TEXT])
    assert not torch.equal(ids, old_ids), "the words have other numbers"
    from transformers import UMT5EncoderModel

    old = UMT5EncoderModel.from_pretrained(SHIPPED, subfolder="text_encoder").float()
    with torch.no_grad():
        torch.testing.assert_close(embed(encoder, ids, lengths), embed(old, old_ids, old_lengths))


def test_smaller_patches_say_what_the_shipped_ones_say_of_a_flat_clip() -> None:
    tokenizer = build_tokenizer(count_words([TEXT]))
    shipped = WanTransformer3DModel.from_pretrained(SHIPPED, subfolder="transformer").float()
    settings = TransformerSettings()
    model, encoder = build_transformer(settings, 24), build_text_encoder(settings.text, len(tokenizer))
    take_up(model, encoder, tokenizer, SHIPPED)
    flat = torch.randn(1, 24, 1, 1, 1).expand(1, 24, 1, 8, 8)
    with torch.no_grad():
        coarse = shipped.patch_embedding(flat).mean((3, 4))
        torch.testing.assert_close(model.patch_embedding(flat).mean((3, 4)), coarse, atol=1e-4, rtol=1e-4)
        said = shipped.proj_out(coarse.flatten(1)).view(4, 24).mean(0)
        torch.testing.assert_close(model.proj_out(coarse.flatten(1))[0], said, atol=1e-4, rtol=1e-4)


def test_an_autoencoder_of_no_phases_is_the_shipped_one(tmp_path: Path) -> None:
    made = stages.vae(stages.TinyWork(tmp_path, TinySettings(), lambda: False))
    shipped = AutoencoderKLWan.from_pretrained(SHIPPED, subfolder="vae").float()
    for name, value in shipped.state_dict().items():
        assert torch.equal(made.state_dict()[name], value)
    with pytest.raises(ValueError, match="give phases, or start = 'shipped'"):
        VaeSettings(phases=())


def test_a_start_of_another_width_is_refused() -> None:
    tokenizer = build_tokenizer(count_words([TEXT]))
    settings = TransformerSettings(heads=4, text=TextSettings())
    with pytest.raises(InputError, match="give the transformer the start's width"):
        take_up(build_transformer(settings, 24), build_text_encoder(settings.text, len(tokenizer)), tokenizer, SHIPPED)


@pytest.mark.parametrize("seed", range(12))
def test_where_things_are_is_where_their_centres_are_and_turns_with_the_clip(seed: int) -> None:
    shot = Shot(width=64, height=64, fps=16, frames=9)
    scene = draw_scene(FAMILIES["world"], np.random.default_rng(seed), shot, LAWS)
    sharp = covered_cells(scene, {})
    for thing in scene.with_role("subject", "prop"):
        for frame, time_s in enumerate(shot.times_s):
            x, y = center_px(thing, scene.camera, shot, time_s)
            if 0 < x < 64 and 0 < y < 64:
                assert sharp[frame, int(y // 8), int(x // 8)]
    blurred = covered_cells(scene, {"shutter": 1 / 16, "aperture": 1.4})
    assert (blurred | ~sharp).all() and 0 < sharp.mean() <= blurred.mean() < 1
    latents = covered_latents(sharp, 2)
    assert latents.shape == (5, 8, 8)
    np.testing.assert_array_equal(latents[1], sharp[1] | sharp[2])
    np.testing.assert_array_equal(covered_latents(TURNS[1].frames(sharp), 2), latents[:, :, ::-1])
