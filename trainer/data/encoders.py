"""From clips and captions to what the transformer trains on, through the cache.

Shapes: T frames, H rows, W columns, 3 channels (RGB); C latent channels, t h w latent frames, rows and columns; L text tokens,
X text width.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanPipeline
from torch import Tensor
from torch.nn import functional as F

from scenes.arrays import Bytes
from scenes.errors import InputError
from trainer.data.cache import TensorCache, cache_key, module_digest


class LatentEncoder:
    """The autoencoder as Wan's pipeline uses it: the mean of the posterior, normalised per channel, in float32.

    The autoencoder runs in the dtype and on the device that it has; both its weights and its dtype are part of every name.
    """

    def __init__(self, vae: AutoencoderKLWan, cache: TensorCache) -> None:
        self.vae = vae
        self.cache = cache
        self.identity = module_digest(vae)
        shape = (1, vae.config.z_dim, 1, 1, 1)
        self.mean = torch.tensor(vae.config.latents_mean, dtype=torch.float32).view(shape)
        self.std = torch.tensor(vae.config.latents_std, dtype=torch.float32).view(shape)

    def key(self, frames_sha256: str) -> str:
        """Return the name of a clip's latents, given the digest of its decoded frames."""
        statistics = f"{list(self.vae.config.latents_mean)} {list(self.vae.config.latents_std)}"
        parts = {"kind": "latents", "frames": frames_sha256, "vae": self.identity, "statistics": statistics}
        return cache_key({**parts, "tiling": _tiling(self.vae)})

    def latents(self, frames_sha256: str, load: Callable[[], Bytes]) -> Tensor:
        """Return a clip's latents [C, t, h, w], float32 on the CPU; `load` decodes its frames only if they are needed."""
        return self.cache.remember(self.key(frames_sha256), lambda: self.encode(load()))

    @torch.no_grad()
    def encode(self, frames_THW3: Bytes) -> Tensor:
        """Encode frames without the cache; raises InputError for frames that the autoencoder cannot take."""
        frames, height, width, _ = frames_THW3.shape
        time, space = self.vae.config.scale_factor_temporal, self.vae.config.scale_factor_spatial
        if frames % time != 1 % time or height % space or width % space:
            raise InputError(
                f"a clip of {frames} frames of {width}x{height} does not fit the autoencoder; give {time}n + 1 frames, "
                f"width and height multiples of {space}"
            )
        video_THW3 = torch.from_numpy(np.ascontiguousarray(frames_THW3)).to(self.vae.device)
        video_13THW = (video_THW3.permute(3, 0, 1, 2).unsqueeze(0).float() / 127.5 - 1.0).to(self.vae.dtype)
        latents_1Cthw = self.vae.encode(video_13THW).latent_dist.mode().float().cpu()
        return ((latents_1Cthw - self.mean) / self.std)[0]


class TextEncoder:
    """The text encoder as Wan's pipeline uses it; embeddings are kept without their zero padding."""

    def __init__(self, pipe: WanPipeline, cache: TensorCache, max_length: int = 512) -> None:
        self.pipe = pipe
        self.cache = cache
        self.max_length = max_length
        self.identity = module_digest(pipe.text_encoder)
        self.tokenizer_identity = _tokenizer_identity(pipe.tokenizer)

    def key(self, caption: str) -> str:
        """Return the name of a caption's embedding."""
        parts = {"kind": "text", "caption": caption, "encoder": self.identity, "tokenizer": self.tokenizer_identity}
        return cache_key({**parts, "max_length": self.max_length})

    def embedding(self, caption: str) -> Tensor:
        """Return a caption's embedding [L, X], L its own number of tokens, in the encoder's dtype on the CPU."""
        return self.cache.remember(self.key(caption), lambda: self.encode(caption))

    @torch.no_grad()
    def encode(self, caption: str) -> Tensor:
        """Embed a caption without the cache."""
        padded_1LX, _ = self.pipe.encode_prompt(
            caption,
            do_classifier_free_guidance=False,
            max_sequence_length=self.max_length,
            device=self.pipe.text_encoder.device,  # diffusers would take the device of the first component it finds
        )
        used = padded_1LX[0].ne(0).any(dim=1).nonzero()
        return padded_1LX[0, : int(used.max()) + 1 if used.numel() else 0].cpu()


def pad_text(embedding_LX: Tensor, length: int) -> Tensor:
    """Return an embedding padded with zeros to `length` tokens, as Wan's pipeline pads (there is no mask)."""
    return F.pad(embedding_LX, (0, 0, 0, length - embedding_LX.shape[0]))


def _tokenizer_identity(tokenizer: Any) -> str:
    """Return what a tokenizer is; padding and truncation are no part of it, a call leaves its own behind."""
    tree = json.loads(tokenizer.backend_tokenizer.to_str())
    return json.dumps({name: part for name, part in tree.items() if name not in ("padding", "truncation")}, sort_keys=True)


def _tiling(vae: AutoencoderKLWan) -> str:
    """Return how the autoencoder cuts pictures up, which changes what it returns."""
    if not vae.use_tiling:
        return "none"
    sizes = ("tile_sample_min_height", "tile_sample_min_width", "tile_sample_stride_height", "tile_sample_stride_width")
    return " ".join(str(getattr(vae, name)) for name in sizes)
