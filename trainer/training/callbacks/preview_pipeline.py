"""A pipeline around the model under training: its transformers, text that was embedded before, an autoencoder for a while.

Shapes: L text tokens, X text width; N videos, A axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanPipeline
from torch import Tensor, nn

from trainer.backbones.load import experts
from trainer.backbones.memory import empty_cache
from trainer.control import AxisControl, WanAdapter
from trainer.generation.sampler import SampleVideos
from trainer.pipelines.controlled_wan import ControlledWan

Embed = Callable[[str], Tensor]  # a prompt's embedding, zero-padded [L, X]


@dataclass(frozen=True, kw_only=True)
class PreviewPipeline:
    """What previews are made with.

    `pipe` is the pipeline under training; it needs neither text encoder nor autoencoder: `embed` gives prompts' embeddings
    ("" too), `vae` the autoencoder. It, and an expert that does not train, are moved to the device of what trains, and back.
    `sample` is the method's loop. `adapters` may be empty (a transformer that trains whole). `autocast` is the training's.
    """

    pipe: WanPipeline
    adapters: Mapping[str, WanAdapter]
    embed: Embed
    vae: Callable[[], AutoencoderKLWan]
    sample: SampleVideos
    autocast: torch.dtype | None = None

    @contextmanager
    def open(self) -> Iterator[PreviewWan]:
        """Lend a pipeline; the scheduler is a copy, the modules are the ones under training."""
        vae = self.vae()
        training, parts = vae.training, [vae, *experts(self.pipe).values()]
        homes = [part.device for part in parts]
        device = next((home for home in homes[1:] if home.type != "cpu"), homes[1])  # of what trains
        try:
            made = PreviewWan.sharing(self, vae.eval())
            made.set_progress_bar_config(disable=True)
            with ExitStack() as stack:
                _move(parts, [device] * len(parts))
                for transformer in experts(self.pipe).values():
                    stack.enter_context(autocasting(transformer, self.autocast))
                yield made
        finally:
            _move(parts, homes)
            vae.train(training)
            empty_cache()


class PreviewWan(ControlledWan):
    """A ControlledWan that looks its prompts up instead of encoding them."""

    embed: Embed

    @classmethod
    def sharing(cls, pipeline: PreviewPipeline, vae: AutoencoderKLWan) -> PreviewWan:
        """Return the pipeline that shares all else, around an autoencoder."""
        pipe, scheduler = pipeline.pipe, type(pipeline.pipe.scheduler).from_config(pipeline.pipe.scheduler.config)
        components = {**pipe.components, "scheduler": scheduler, "vae": vae, "text_encoder": None}
        boundary, expand = pipe.config.boundary_ratio, pipe.config.expand_timesteps
        made = cls(**components, boundary_ratio=boundary, expand_timesteps=expand)
        made.adapters, made.card, made.embed = dict(pipeline.adapters), None, pipeline.embed
        return made

    @property
    def axes(self) -> tuple[AxisControl, ...]:
        """The axes that the adapter controls; none without an adapter."""
        return super().axes if self.adapters else ()

    def encode_prompt(
        self,
        prompt: str | list[str] | None = None,
        negative_prompt: str | list[str] | None = None,
        do_classifier_free_guidance: bool = True,
        num_videos_per_prompt: int = 1,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        max_sequence_length: int = 512,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the embeddings [1, L, X] of a prompt and, under guidance, of the negative one; those given as they are."""
        where = device if device is not None else self._execution_device
        if prompt_embeds is None:
            prompt_embeds = self._looked_up(prompt, where)
        if do_classifier_free_guidance and negative_prompt_embeds is None:
            negative_prompt_embeds = self._looked_up(negative_prompt or "", where)
        return prompt_embeds, negative_prompt_embeds

    def _looked_up(self, prompt: Any, device: torch.device) -> Tensor:
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        return torch.stack([self.embed(words) for words in prompts]).to(device)


def _move(parts: Sequence[nn.Module], devices: Sequence[torch.device]) -> None:
    """Bring modules to devices; packed ones, which cannot be moved, are where they belong."""
    for part, device in zip(parts, devices, strict=True):
        if part.device != device:
            part.to(device)


@contextmanager
def autocasting(module: nn.Module, dtype: torch.dtype | None) -> Iterator[None]:
    """Run a module's forward, and nothing else, under autocast: the autoencoder keeps its own dtype."""
    if dtype is None:
        yield
        return
    device = next(module.parameters()).device.type
    open_now: list[torch.autocast] = []

    def enter(_module: nn.Module, _arguments: Any) -> None:
        context = torch.autocast(device, dtype)
        context.__enter__()
        open_now.append(context)

    def leave(_module: nn.Module, _arguments: Any, _result: Any) -> None:
        open_now.pop().__exit__(None, None, None)

    hooks = [module.register_forward_pre_hook(enter), module.register_forward_hook(leave, always_call=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
