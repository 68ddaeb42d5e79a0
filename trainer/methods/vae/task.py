"""Trains a whole autoencoder on frames: how the bundled tiny backbone's is made.

Shapes: B clips, T frames, H rows, W columns, 3 channels (RGB); C latent channels, t h w latent frames, rows and columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify
from torch import Tensor, nn

from scenes.errors import InputError
from trainer.control import WanAdapter
from trainer.data.batch import Batch
from trainer.data.encoding import EncodedReader
from trainer.data.frames import FRAMES, FrameBatches, check_lengths
from trainer.data.records import TrainingClip
from trainer.training.callbacks.validation import Validation
from trainer.training.dry_run import Sizes, parameter_count
from trainer.training.setup import Opened, autocast_dtype
from trainer.training.tasks.weights import swapped


class Reconstruction(nn.Module):
    """An autoencoder as one forward: encode, draw from the posterior, decode without the clamp that would stop gradients."""

    def __init__(self, vae: AutoencoderKLWan) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, video_B3THW: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the reconstruction [B, 3, T, H, W] and the posterior's mean and log variance [B, C, t, h, w].

        `noise` is standard normal with the mean's shape.
        """
        posterior = self.vae.encode(video_B3THW).latent_dist
        latents_BCthw = posterior.mean + posterior.std * noise.to(posterior.mean)
        return self._decode(latents_BCthw), posterior.mean, posterior.logvar

    def _decode(self, latents_BCthw: Tensor) -> Tensor:
        """Decode as AutoencoderKLWan does, frame by frame with its cache, but for the final clamp to [-1, 1]."""
        vae = self.vae
        vae.clear_cache()
        hidden_BCthw = vae.post_quant_conv(latents_BCthw)
        parts = []
        for index in range(hidden_BCthw.shape[2]):
            vae._conv_idx = [0]
            first = {"first_chunk": True} if index == 0 else {}
            frame = hidden_BCthw[:, :, index : index + 1]
            parts.append(vae.decoder(frame, feat_cache=vae._feat_map, feat_idx=vae._conv_idx, **first))
        vae.clear_cache()
        video_B3THW = torch.cat(parts, dim=2)
        return video_B3THW if vae.config.patch_size is None else unpatchify(video_B3THW, patch_size=vae.config.patch_size)


class VaeTask:
    """All parameters of an autoencoder: L1, an L1 of differences along rows, columns and time, and a small KL. See `Task`."""

    name = "vae"
    adapters: Mapping[str, WanAdapter] = MappingProxyType({})

    def __init__(
        self,
        vae: AutoencoderKLWan,
        batches: FrameBatches,
        *,
        gradient_weight: float = 1.0,
        kl_weight: float = 1e-6,
        autocast: torch.dtype | None = None,
        module: nn.Module | None = None,
    ) -> None:
        """`module` replaces `Reconstruction` by another that holds the same autoencoder and has the same forward."""
        check_crops(vae.config, batches.lengths, batches.records)
        self.vae = vae
        self.batches = batches
        self.gradient_weight = gradient_weight
        self.kl_weight = kl_weight
        self.autocast = autocast
        self.module: nn.Module = module if module is not None else Reconstruction(vae)
        self.module.requires_grad_(True).train()

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return every parameter of the autoencoder, by its name there."""
        return dict(self.vae.named_parameters())

    def micro_batch(self, micro_step: int, rank: int, ranks: int) -> Batch:
        """Return the batch of a micro-step for one of `ranks` processes."""
        return self.batches.micro_batch(micro_step, rank, ranks)

    def losses(self, batch: Batch, generator: torch.Generator, module: nn.Module) -> Tensor:
        """Return the loss of every clip [B]; the generator draws from the posterior."""
        time, space = self.vae.config.scale_factor_temporal, self.vae.config.scale_factor_spatial
        count, frames, height, width, _ = batch.tensors[FRAMES].shape
        shape = (count, self.vae.config.z_dim, (frames - 1) // time + 1, height // space, width // space)
        return self.losses_at(batch, torch.randn(shape, generator=generator, device=generator.device), module)

    def losses_at(self, batch: Batch, noise_BCthw: Tensor, module: nn.Module) -> Tensor:
        """Return the loss of every clip [B] for given noise of the posterior: for validation."""
        device = next(module.parameters()).device
        video_B3THW = batch.tensors[FRAMES].to(device).permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0
        with torch.autocast(device.type, self.autocast, enabled=self.autocast is not None):
            made_B3THW, mean_BCthw, logvar_BCthw = module(video_B3THW, noise_BCthw.to(device))
        error_B3THW = made_B3THW.float() - video_B3THW
        losses_B = error_B3THW.abs().flatten(1).mean(1)
        for axis in (2, 3, 4):
            if error_B3THW.shape[axis] > 1:
                losses_B = losses_B + self.gradient_weight * error_B3THW.diff(dim=axis).abs().flatten(1).mean(1)
        return losses_B + self.kl_weight * normal_divergence(mean_BCthw.float(), logvar_BCthw.float())

    def before_step(self, step: int) -> None:
        """Nothing depends on the step."""

    def save(self, folder: Path, step: int, averaged: Mapping[str, Tensor] | None) -> None:
        """Write `vae/` as diffusers saves it."""
        with swapped(self.parameters(), averaged):
            self.vae.save_pretrained(folder / "vae")

    def save_beside(self, checkpoint: Path, step: int, weights: Mapping[str, Tensor]) -> None:
        """Nothing: a whole model in every checkpoint would be too much."""


def normal_divergence(mean_BCthw: Tensor, logvar_BCthw: Tensor) -> Tensor:
    """Return the mean KL divergence per latent value of N(mean, exp(logvar)) from N(0, 1), [B]."""
    return 0.5 * (mean_BCthw.square() + logvar_BCthw.exp() - 1.0 - logvar_BCthw).flatten(1).mean(1)


def check_crops(config: Mapping[str, Any], lengths: Sequence[int], records: Sequence[TrainingClip]) -> None:
    """Raise InputError for lengths or clips that an autoencoder of a configuration cannot take."""
    time, space = config["scale_factor_temporal"], config["scale_factor_spatial"]
    for length in lengths:
        if length % time != 1 % time:
            raise InputError(f"crops of {length} frames do not fit the autoencoder; give {time}n + 1")
    for record in records:
        if record.height % space or record.width % space:
            raise InputError(
                f"clip {record.clip_id} is {record.width}x{record.height}; the autoencoder takes multiples of {space}"
            )


class VaeParts:
    """How the method trains (`trainer.training.setup.TaskParts`)."""

    @property
    def validation(self) -> type[Validation]:
        """The callback that validates it."""
        from trainer.methods.vae.frame_validation import FrameValidation

        return FrameValidation

    def check(self, opened: Opened) -> None:
        """Raise InputError for crops that the clips or the autoencoder cannot give."""
        check_lengths(opened.settings.crop_frames, opened.data.train)
        check_crops(opened.pipe.vae.config, opened.settings.crop_frames, opened.data.train)

    def make(self, opened: Opened, reader: EncodedReader | None) -> VaeTask:
        """Return the task: it learns from frames."""
        settings = opened.settings
        batches = FrameBatches(
            opened.data, opened.data.train, batch_size=settings.batch_size, seed=settings.seed, lengths=settings.crop_frames
        )
        return VaeTask(opened.pipe.vae, batches, autocast=autocast_dtype(opened))

    def trainable(self, sizes: Sizes) -> dict[str, int]:
        """Return the parameters of the autoencoder."""
        return {"vae": parameter_count(sizes.pipe.vae)}


TASK = VaeParts()
