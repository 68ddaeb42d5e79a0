"""Puts an adapter on a backbone and takes it off again; switches modes.

Shapes: B batch, F latent frames, A axes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from torch import Tensor, nn

from scenes.errors import InputError, StopdownError
from trainer.control.attention import ControlAttention, TextAttention
from trainer.control.config import AdapterConfig, ControlConfig
from trainer.control.embedding import ControlEmbedding
from trainer.control.lora import LORA_NAME, activate_lora, inject_lora, lora_parameters
from trainer.control.modes import Mode, check_mode, default_mode
from trainer.weights.strict import check_exact
from trainer.weights.weights_file import check_finite

CONTROLS = "controls"  # the key in `attention_kwargs` under which a forward call receives its controls [B, A]


class WanAdapter:
    """An adapter on a transformer: its parameters, its mode and its state.

    Call the transformer with `attention_kwargs={"controls": controls_BA}`, one row per video (or one row for all). For controls
    that change over time, [B, F, A], call `set_frames(F)` before; it holds until the next one.
    """

    def __init__(self, transformer: WanTransformer3DModel, config: AdapterConfig) -> None:
        self.transformer = transformer
        self.config = config
        self.mode = Mode.BACKBONE_ONLY
        self.strength = 0.0
        self.ramp = 1.0
        self.frames = 1
        self._axes = len(config.control.axes) if config.control is not None else 0
        self._carries = False
        self._instead: Tensor | None = None  # the controls of diffusers' pass "uncond", while it runs
        self._hook = transformer.register_forward_pre_hook(self._carry_controls, with_kwargs=True)

    def _carry_controls(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Move the controls to the argument whose embedding Wan puts in front of the text; refuse a call without them."""
        received = dict(kwargs.get("attention_kwargs") or {})
        own = received.pop(CONTROLS, None)
        controls = own if self._instead is None else self._instead
        kwargs = {**kwargs, "attention_kwargs": received}
        if not self._carries:
            return args, kwargs
        if len(args) > 3 or kwargs.get("encoder_hidden_states_image") is not None:
            raise InputError("this backbone call carries image embeddings; control adapters work on text-to-video backbones")
        text_BLX = args[2] if len(args) > 2 else kwargs["encoder_hidden_states"]
        if torch.is_grad_enabled() and (text_BLX.requires_grad or _trains(self.transformer.condition_embedder.text_embedder)):
            raise InputError(
                "the text of this call wants a gradient, which control tokens keep from it; freeze the text embedder"
            )
        hidden_BCTHW = args[0] if args else kwargs["hidden_states"]
        carried = self._checked(controls, hidden_BCTHW).to(hidden_BCTHW.device, torch.float32)
        return args, {**kwargs, "encoder_hidden_states_image": carried.expand(hidden_BCTHW.shape[0], *carried.shape[1:])}

    def _checked(self, controls: Tensor | None, hidden_BCTHW: Tensor) -> Tensor:
        """Return the controls of a call, a row [A] or [F, A] per video or for all; raises InputError where they do not fit."""
        batch, _, latent_frames, *_ = hidden_BCTHW.shape
        row = [self._axes] if self.frames == 1 else [self.frames, self._axes]
        if controls is None:
            raise InputError(
                f"the backbone was called without controls; pass attention_kwargs={{'{CONTROLS}': {[batch, *row]}}}"
            )
        if self.frames not in (1, latent_frames):
            raise InputError(
                f"the adapter was set to controls of {self.frames} latent frames and the video has {latent_frames}; call "
                f"set_frames({latent_frames}), or set_frames(1) for one control over the whole video"
            )
        if list(controls.shape[1:]) != row or controls.shape[0] not in (1, batch):
            over = "" if self.frames == 1 else f" of {self.frames} latent frames"
            raise InputError(
                f"controls of shape {list(controls.shape)} do not fit a batch of {batch} videos{over} and {self._axes} axes; "
                f"give {[batch, *row]} or {[1, *row]}"
            )
        return controls

    @contextmanager
    def unconditional(self, controls: Tensor) -> Iterator[None]:
        """While entered, the pass of guidance that diffusers' pipelines name "uncond" receives these controls instead."""
        whole = self.transformer.cache_context

        @contextmanager
        def cache_context(name: str, **where: Any) -> Iterator[None]:
            self._instead = controls if name == "uncond" else None
            try:
                with whole(name, **where):
                    yield
            finally:
                self._instead = None

        self.transformer.cache_context = cache_context
        try:
            yield
        finally:
            del self.transformer.cache_context

    @property
    def embedding(self) -> ControlEmbedding:
        """The control embedding; raises InputError on an adapter without control."""
        module = self.transformer.condition_embedder.image_embedder
        if not isinstance(module, ControlEmbedding):
            raise InputError("this adapter has no control part")
        return module

    @property
    def processors(self) -> dict[int, ControlAttention]:
        """The control attention of each conditioned block, by block index."""
        blocks = self.config.control.blocks if self.config.control is not None else ()
        return {block: self.transformer.blocks[block].attn2.processor for block in blocks}

    def control_parameters(self) -> dict[str, nn.Parameter]:
        """Return the control adapter's parameters under the names of `control_adapter.safetensors`."""
        if self.config.control is None:
            return {}
        named = {f"embedding.{name}": parameter for name, parameter in self.embedding.named_parameters()}
        for block, processor in self.processors.items():
            named |= {f"blocks.{block}.{name}": parameter for name, parameter in processor.named_parameters()}
        return named

    def lora_parameters(self) -> dict[str, nn.Parameter]:
        """Return the LoRA's parameters under peft's names."""
        return lora_parameters(self.transformer) if self.config.lora is not None else {}

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return all that trains, control first, under the names of the adapter's files."""
        return {**self.control_parameters(), **self.lora_parameters()}

    def load(self, control: Mapping[str, Tensor], lora: Mapping[str, Tensor], source: str) -> None:
        """Copy weights in; raises InputError naming what is missing, unexpected or of a wrong shape in `source`."""
        pairs = {"control adapter": (control, self.control_parameters()), "LoRA": (lora, self.lora_parameters())}
        for what, (received, own) in pairs.items():
            check_exact(f"{source} ({what})", {name: tuple(p.shape) for name, p in own.items()}, received)
        with torch.no_grad():
            for received, own in pairs.values():
                for name, parameter in own.items():
                    parameter.copy_(received[name])
                check_finite(f"{source} as {self.transformer.dtype}", own)  # float16 ends at 65,504

    def set_mode(self, mode: str, strength: float = 1.0) -> None:
        """Choose what acts and how strongly: `strength` scales control attention and LoRA; at 0 the backbone is bare.

        Raises InputError for an unknown mode, one this adapter cannot serve, and a strength that is not a finite number.
        """
        parts = check_mode(mode, self.config)
        if not math.isfinite(strength):
            raise InputError(f"strength {strength} is not a number; give a finite one, 0 for the bare backbone, 1 as trained")
        self.mode, self.strength = Mode(mode), strength
        conditioned = self.config.control.blocks if self.config.control is not None else ()
        if self.config.lora is not None:
            activate_lora(
                self.transformer,
                lambda block: parts.lora == "all" or (parts.lora == "conditioned" and block in conditioned),
                strength,
            )
        self._switch_control()

    def set_ramp(self, ramp: float) -> None:
        """Set w of DESIGN section 4, which the training loop ramps from 0 to 1; it scales the control attention only.

        Raises InputError for a ramp outside 0 to 1.
        """
        if not math.isfinite(ramp):
            raise InputError(f"ramp {ramp} is not a number; give one from 0 to 1")
        self.ramp = ramp
        self._switch_control()

    def set_frames(self, frames: int) -> None:
        """Set how many latent frames have controls of their own: 1, or all that a video has (its controls are [B, F, A]).

        It is a state like the ramp, not an argument, because a forward pass must not change anything and gradient
        checkpointing replays blocks later: set it before a batch, and change it only after its backward pass. Raises
        InputError for less than one.
        """
        if frames < 1:
            raise InputError(f"{frames} latent frames cannot be; give 1 or more")
        self.frames = frames
        self._switch_control()

    def _switch_control(self) -> None:
        if self.config.control is None:
            return
        weight = self.ramp * self.strength
        self._carries = check_mode(self.mode, self.config).control and weight != 0
        prefix = self.embedding.prefix * self.frames if self._carries else 0
        for block in self.transformer.blocks:
            block.attn2.processor.prefix = prefix
        for processor in self.processors.values():
            processor.gate.ramp.fill_(weight)
            processor.frames = self.frames

    def detach(self) -> None:
        """Take the adapter off; the transformer is as it was before, except that its parameters stay frozen."""
        self._hook.remove()
        if self.config.lora is not None:
            self.transformer.delete_adapters(LORA_NAME)
            if not getattr(self.transformer, "peft_config", None):  # diffusers drops it with the last LoRA
                self.transformer.unload_lora()  # else peft's wrappers stay around every projection
        if self.config.control is not None:
            self.transformer.condition_embedder.image_embedder = None
            for block in self.transformer.blocks:
                backend = block.attn2.processor._attention_backend
                block.attn2.set_processor(WanAttnProcessor())
                block.attn2.processor._attention_backend = backend


def attach(
    transformer: WanTransformer3DModel, config: AdapterConfig, *, seed: int = 0, dtype: torch.dtype | None = None
) -> WanAdapter:
    """Put a fresh adapter on a transformer, freeze the backbone and return the adapter in its default mode.

    The embedding is float32; the rest takes `dtype`, the backbone's own if none is given (training wants float32). Raises
    InputError for an image-to-video backbone, blocks it does not have, and a transformer that already carries an adapter.
    """
    check_backbone(transformer, config)
    for parameter in transformer.parameters():
        parameter.requires_grad_(False)
    used = dtype if dtype is not None else transformer.dtype
    if config.control is not None:
        _attach_control(transformer, config.control, used, seed)
    if config.lora is not None:
        inject_lora(transformer, config.lora, seed)
        if dtype is not None:
            for parameter in lora_parameters(transformer).values():
                parameter.data = parameter.data.to(dtype)
    adapter = WanAdapter(transformer, config)
    adapter.set_mode(default_mode(config))
    for parameter in adapter.parameters().values():
        parameter.requires_grad_(True)
    return adapter


def check_backbone(transformer: WanTransformer3DModel, config: AdapterConfig) -> None:
    """Raise InputError for a transformer that cannot carry an adapter; one without weights tells as well."""
    if not isinstance(transformer, WanTransformer3DModel):
        raise InputError(f"the backbone's transformer is a {type(transformer).__name__}; adapters fit a WanTransformer3DModel")
    embedder = transformer.condition_embedder.image_embedder
    carries_lora = LORA_NAME in getattr(transformer, "peft_config", {})
    if isinstance(embedder, ControlEmbedding) or carries_lora:
        raise InputError("this transformer already carries an adapter; detach it first")
    if config.control is None:
        return
    if embedder is not None or transformer.config.added_kv_proj_dim is not None:
        raise InputError("this backbone takes images; control adapters fit text-to-video backbones")
    if config.control.blocks[-1] >= transformer.config.num_layers:
        raise InputError(
            f"the adapter conditions block {config.control.blocks[-1]}, this backbone has blocks 0 to "
            f"{transformer.config.num_layers - 1}; use the backbone that it was trained on"
        )
    for block in transformer.blocks:
        if getattr(block.attn2, "fused_projections", False):
            raise InputError("the backbone's projections are fused; call unfuse_qkv_projections() before attaching an adapter")
        if type(block.attn2.processor) is not WanAttnProcessor:
            raise StopdownError(f"cross-attention already has a {type(block.attn2.processor).__name__}; detach it first")


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _attach_control(transformer: WanTransformer3DModel, config: ControlConfig, dtype: torch.dtype, seed: int) -> None:
    width = transformer.config.num_attention_heads * transformer.config.attention_head_dim
    device = transformer.patch_embedding.weight.device
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]), torch.device(device):  # layers draw on creation; leave the global generator alone
        embedding = ControlEmbedding(len(config.axes), config.hidden_dim, config.embed_dim, width)
        controlled = {block: ControlAttention(config, width, transformer.config.eps, dtype) for block in config.blocks}
    if device.type != "meta":
        embedding.initialise(generator)
        for processor in controlled.values():
            processor.initialise(generator)
    transformer.condition_embedder.image_embedder = embedding
    for index, block in enumerate(transformer.blocks):
        backend = block.attn2.processor._attention_backend
        block.attn2.set_processor(controlled.get(index) or TextAttention())
        block.attn2.processor._attention_backend = backend
