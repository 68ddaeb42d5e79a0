"""Feature extractors for FEP and SVP: CLIP and X-CLIP through transformers, and a backbone's own features.

Every extractor has a name that stands in each table it feeds, because numbers of different extractors cannot be compared.

Shapes: N videos, T frames, H rows, W columns, 3 channels (RGB); D features; C latent channels, t h w latent size, S tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from diffusers import WanPipeline
from torch import Tensor, nn
from torch.nn import functional as F

from scenes.arrays import Bytes, Floats
from scenes.errors import InputError
from trainer.backbones.load import experts, fingerprint
from trainer.control.modes import Mode
from trainer.training.tasks.objective import fixed_noise, mix, model_times, predict_velocity

CLIP = "openai/clip-vit-large-patch14"
XCLIP = "microsoft/xclip-base-patch32"
FEATURE_TIME = 0.1  # little noise: the tokens still carry the picture, and the backbone works in its own range


class VideoFeatures(Protocol):
    """What turns a video into numbers."""

    @property
    def name(self) -> str:
        """What tables call it."""
        ...

    def video(self, frames_THW3: Bytes) -> Floats:
        """Return a video's features [D]."""
        ...


@runtime_checkable
class TextScores(VideoFeatures, Protocol):
    """A feature extractor that can also compare a video with words."""

    def text(self, prompt: str) -> Floats:
        """Return a prompt's features [D], comparable with `video` by cosine."""
        ...


class ClipFeatures:
    """CLIP's projected image features, averaged over the frames."""

    def __init__(self, source: str = CLIP, device: str = "cpu") -> None:
        from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

        self.name = f"CLIP ({source})"
        self.model = _loaded(CLIPModel, source).to(device)
        self.processor = _loaded(CLIPImageProcessor, source)
        self.tokenizer = _loaded(AutoTokenizer, source)

    @torch.no_grad()
    def video(self, frames_THW3: Bytes) -> Floats:
        """Return the mean of the frames' features [D]."""
        pixels = self.processor(images=list(frames_THW3), return_tensors="pt")["pixel_values"].to(
            self.model.device, self.model.dtype
        )
        return _numbers(_pooled(self.model.get_image_features(pixel_values=pixels)).mean(0))

    @torch.no_grad()
    def text(self, prompt: str) -> Floats:
        """Return a prompt's features [D]."""
        return _numbers(_text_features(self.model, self.tokenizer, prompt))


class XClipFeatures:
    """X-CLIP's video features: frames are taken evenly, as many as the model wants, with repetition where there are fewer."""

    def __init__(self, source: str = XCLIP, device: str = "cpu") -> None:
        from transformers import AutoTokenizer, CLIPImageProcessor, XCLIPModel

        self.name = f"X-CLIP ({source})"
        self.model = _loaded(XCLIPModel, source).to(device)
        self.processor = _loaded(CLIPImageProcessor, source)
        self.tokenizer = _loaded(AutoTokenizer, source)

    @torch.no_grad()
    def video(self, frames_THW3: Bytes) -> Floats:
        """Return the video's features [D]."""
        wanted = self.model.config.vision_config.num_frames
        chosen = np.linspace(0, len(frames_THW3) - 1, wanted).round().astype(int)
        pixels = self.processor(images=list(frames_THW3[chosen]), return_tensors="pt")["pixel_values"].to(
            self.model.device, self.model.dtype
        )
        return _numbers(_pooled(self.model.get_video_features(pixel_values=pixels[None]))[0])

    @torch.no_grad()
    def text(self, prompt: str) -> Floats:
        """Return a prompt's features [D]; X-CLIP's own prompts also look at the video, which this leaves out."""
        return _numbers(_text_features(self.model, self.tokenizer, prompt))


class BackboneFeatures:
    """A clean backbone's hidden tokens after its middle block, at little fixed noise and without words, averaged.

    Adapters on the pipeline are switched off while it looks.
    For places where no hub is reachable. They say how far apart two videos are to this backbone and nothing about words.
    """

    def __init__(self, pipe: WanPipeline) -> None:
        transformer = next(iter(experts(pipe).values()))
        self.pipe = pipe
        self.transformer = transformer
        self.block = transformer.config.num_layers // 2
        self.name = f"block {self.block} of backbone {fingerprint(transformer)[:8]}"

    @torch.no_grad()
    def video(self, frames_THW3: Bytes) -> Floats:
        """Return the mean of the video's hidden tokens [D]."""
        latents_1Cthw = self._latents(frames_THW3)
        times_1 = torch.full((1,), FEATURE_TIME)
        noisy = mix(latents_1Cthw, fixed_noise(tuple(latents_1Cthw.shape), "features"), times_1)
        config = self.transformer.config
        per_token = bool(getattr(self.pipe.config, "expand_timesteps", False))
        times = model_times(times_1, latents_1Cthw, tuple(config.patch_size), per_token=per_token)
        seen: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            seen.append(output)

        hook = self.transformer.blocks[self.block].register_forward_hook(keep)
        carried = getattr(self.pipe, "adapters", {}).values()
        modes = {one: (one.mode, one.strength) for one in carried if one.mode != Mode.BACKBONE_ONLY}  # switching costs time
        try:
            for adapter in modes:
                adapter.set_mode(Mode.BACKBONE_ONLY)
            words_1LX = torch.zeros(1, 1, config.text_dim, device=self.transformer.device)
            place = self.transformer.device
            predict_velocity(self.transformer, noisy.to(place), times.to(place), words_1LX, None, self.transformer.dtype)
        finally:
            hook.remove()
            for adapter, (mode, strength) in modes.items():
                adapter.set_mode(mode, strength)
        return _numbers(seen[0][0].mean(0))

    def _latents(self, frames_THW3: Bytes) -> Tensor:
        vae = self.pipe.vae
        video_THW3 = torch.from_numpy(np.ascontiguousarray(frames_THW3)).to(vae.device)
        video_13THW = video_THW3.permute(3, 0, 1, 2).unsqueeze(0).to(vae.dtype) / 127.5 - 1.0
        latents_1Cthw = vae.encode(video_13THW).latent_dist.mode().float().cpu()
        shape = (1, -1, 1, 1, 1)
        mean = torch.tensor(vae.config.latents_mean, dtype=torch.float32).view(shape)
        return (latents_1Cthw - mean) / torch.tensor(vae.config.latents_std, dtype=torch.float32).view(shape)


def stacked(features: VideoFeatures, videos: Sequence[Bytes]) -> Floats:
    """Return the features of several videos [N, D]."""
    return np.stack([features.video(frames_THW3) for frames_THW3 in videos])


def _loaded(kind: Any, source: str) -> Any:
    try:
        made = kind.from_pretrained(source)
    except (OSError, ValueError) as error:
        where = "folder" if Path(source).exists() else "hub id"
        raise InputError(
            f"feature extractor {source} cannot be loaded from that {where} (not found, or the hub is out of reach); give a "
            "local folder, or --features tiny for the backbone's own features"
        ) from error
    return made.eval() if isinstance(made, nn.Module) else made


def _pooled(output: Any) -> Tensor:
    """Return the projected features; transformers 5 wraps them, 4 did not."""
    return output if isinstance(output, Tensor) else output.pooler_output


def _text_features(model: Any, tokenizer: Any, prompt: str) -> Tensor:
    words = tokenizer([prompt], return_tensors="pt", truncation=True).to(model.device)
    return F.normalize(_pooled(model.get_text_features(**words))[0], dim=0)


def _numbers(features_D: Tensor) -> Floats:
    return features_D.double().cpu().numpy()
