"""Trains a control adapter on a frozen backbone: control attention, LoRA, or both.

Shapes: B clips, C latent channels, T latent frames, H rows, W columns; L text tokens, X text width; A axes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import WanPipeline
from torch import Tensor, nn

from scenes.errors import InputError
from trainer.adapters.folder import save_adapter
from trainer.adapters.place import IN_CHECKPOINT
from trainer.backbones.load import EXPERTS, fingerprint
from trainer.control import AdapterConfig, Mode, WanAdapter, attach
from trainer.control.config import adapter_config
from trainer.data.batch import Batch
from trainer.data.batches import CONTROLS_NAME, LATENTS, SCENES, TEXT, FlowBatches
from trainer.data.encoding import EncodedReader
from trainer.estimates.footprint import adapter_counts
from trainer.training.callbacks.validation import Validation
from trainer.training.dry_run import Sizes
from trainer.training.given import load_given
from trainer.training.setup import DTYPES, Opened, make_flow
from trainer.training.tasks.flow import Contrast, Draw, Experts, RectifiedFlow, drop_captions, shown_places

RAMP_STEPS = 100  # DESIGN section 4


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What an adapter's card says of its making."""

    backbone_id: str
    dataset_version: str | None = None
    recipe: Mapping[str, Any] | None = None


class ControlTask:
    """The adapters of one transformer, or of two that share a configuration. See `Task` for what each method is for."""

    name = "control"

    def __init__(
        self,
        adapters: Mapping[str, WanAdapter],
        batches: FlowBatches,
        flow: RectifiedFlow,
        provenance: Provenance,
        *,
        caption_dropout: float = 0.0,
        contrast: float = 1.0,
        counterfactual_noise: float = 0.0,
        ramp_steps: int = RAMP_STEPS,
        gradient_checkpointing: bool = True,
    ) -> None:
        if not 0 <= caption_dropout < 1:
            raise InputError(f"caption dropout {caption_dropout:g} is impossible; give a share from 0 to below 1")
        if batches.clips_per_scene == 1 and (contrast != 1 or counterfactual_noise):
            raise InputError("contrast and counterfactual_noise need clips of a scene together; give clips_per_scene above 1")
        if set(adapters) != set(flow.trained):
            raise InputError(f"adapters of {', '.join(adapters)} do not fit a flow that trains {', '.join(flow.trained)}")
        self.adapters: Mapping[str, WanAdapter] = dict(adapters)
        self.batches = batches
        self.flow = flow
        self.provenance = provenance
        self.fingerprints = {name: fingerprint(adapter.transformer) for name, adapter in adapters.items()}  # before sharding
        self.caption_dropout = caption_dropout
        self.contrast = contrast
        self.counterfactual_noise = counterfactual_noise
        self.ramp_steps = ramp_steps
        for adapter in self.adapters.values():
            adapter.set_mode(training_mode(adapter.config))
            adapter.transformer.train()
            if gradient_checkpointing:
                adapter.transformer.enable_gradient_checkpointing()
        transformers = {name: adapter.transformer for name, adapter in self.adapters.items()}
        self.module: nn.Module = next(iter(transformers.values())) if len(transformers) == 1 else Experts(transformers)

    @property
    def config(self) -> AdapterConfig:
        """What is trained."""
        return next(iter(self.adapters.values())).config

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return all that trains, as `<transformer>.<name in the adapter's files>`."""
        return {f"{part}.{name}": p for part, adapter in self.adapters.items() for name, p in adapter.parameters().items()}

    def micro_batch(self, micro_step: int, rank: int, ranks: int) -> Batch:
        """Return the batch of a micro-step for one of `ranks` processes."""
        return self.batches.micro_batch(micro_step, rank, ranks)

    def losses(self, batch: Batch, generator: torch.Generator, module: nn.Module) -> Tensor:
        """Return the loss of every clip [B] at noise levels and noise from the generator.

        Clips of a scene that the batch keeps together have the same: what the network cannot know of them is then the same
        too, and cancels from the gradient of what tells them apart, the control. For the share
        `counterfactual_noise` of them, the noise shows another of them: what is seen then speaks against the control, and only
        the control is right.
        """
        latents_BCTHW, scenes_B = batch.tensors[LATENTS], batch.tensors.get(SCENES)
        draw = self.flow.draw(latents_BCTHW, generator)
        if scenes_B is not None:
            draw = draw.taken(scenes_B)
            if self.counterfactual_noise:
                draw = draw.showing(latents_BCTHW, shown_places(scenes_B, self.counterfactual_noise, generator))
        text_BLX = batch.tensors[TEXT]
        if self.caption_dropout:
            text_BLX = drop_captions(text_BLX, self.batches.empty_text(), self.caption_dropout, generator)
        contrast = None if scenes_B is None or self.contrast == 1 else Contrast(weight=self.contrast, scenes_B=scenes_B)
        return self._losses(batch, text_BLX, draw, module, contrast)

    def losses_at(self, batch: Batch, draw: Draw, module: nn.Module) -> Tensor:
        """Return the loss of every clip [B] at given noise levels and noise, with every caption: for validation."""
        return self._losses(batch, batch.tensors[TEXT], draw, module)

    def _losses(
        self, batch: Batch, text_BLX: Tensor, draw: Draw, module: nn.Module, contrast: Contrast | None = None
    ) -> Tensor:
        controls_BA = batch.tensors[CONTROLS_NAME] if self.config.control is not None else None
        return self.flow.losses(module, batch.tensors[LATENTS], text_BLX, controls_BA, draw, contrast)

    def before_step(self, step: int) -> None:
        """Set the ramp of the control attention for optimizer step `step` (from 0): it reaches 1 with the last ramp step.

        It starts above 0, because at 0 the control is bypassed and would have no gradient.
        """
        ramp = 1.0 if self.ramp_steps < 1 else min(1.0, (step + 1) / self.ramp_steps)
        for adapter in self.adapters.values():
            adapter.set_ramp(ramp)

    def save(self, folder: Path, step: int, averaged: Mapping[str, Tensor] | None) -> None:
        """Write the adapter's folder, replacing an earlier one."""
        save_adapter(
            folder,
            self.adapters,
            backbone_id=self.provenance.backbone_id,
            step=step,
            dataset_version=self.provenance.dataset_version,
            recipe=self.provenance.recipe,
            weights=None if averaged is None else by_expert(averaged),
            fingerprints=self.fingerprints,
            overwrite=True,
        )

    def save_beside(self, checkpoint: Path, step: int, weights: Mapping[str, Tensor]) -> None:
        """Write the adapter's folder into a checkpoint's, so that the checkpoint can be used as an adapter."""
        self.save(checkpoint / IN_CHECKPOINT, step, weights)


def by_expert(weights: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return weights under the names of `ControlTask.parameters` by transformer, under the names of the adapter's files."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in weights.items():
        expert, _, own = name.partition(".")
        parts.setdefault(expert, {})[own] = tensor
    return parts


def training_mode(config: AdapterConfig) -> Mode:
    """Return the mode in which an adapter trains: all that it has acts, everywhere."""
    if config.control is None:
        return Mode.LORA_ONLY
    return Mode.CONTROL_ONLY if config.lora is None else Mode.JOINT


def attach_adapters(
    pipe: WanPipeline, config: AdapterConfig, *, trained: tuple[str, ...] = (EXPERTS[0],), seed: int = 0
) -> dict[str, WanAdapter]:
    """Put fresh float32 adapters on a pipeline's transformers; returns them by component name."""
    RectifiedFlow.of(pipe, trained)  # says which expert is absent
    return {
        name: attach(getattr(pipe, name), config, seed=seed + EXPERTS.index(name), dtype=torch.float32)
        for name in EXPERTS
        if name in trained
    }


class ControlParts:
    """How the method trains (`trainer.training.setup.TaskParts`)."""

    validation = Validation

    def check(self, opened: Opened) -> None:
        """Raise InputError for an expert or a block that the backbone lacks."""
        RectifiedFlow.of(opened.pipe, opened.experts)
        adapter_config(opened.settings, opened.axes, _layers(opened))

    def make(self, opened: Opened, reader: EncodedReader | None) -> ControlTask:
        """Return the task, on fresh adapters or on the weights that it is to start from."""
        assert reader is not None
        settings, given, layers = opened.settings, opened.given, _layers(opened)
        config = adapter_config(settings, opened.axes, layers)
        adapters = attach_adapters(opened.pipe, config, trained=opened.experts, seed=settings.seed)
        if given is not None and given.saved is not None:  # else a checkpoint holds what became of them
            load_given(given.saved, adapters)
        return ControlTask(
            adapters,
            FlowBatches(
                opened.data.train,
                reader,
                batch_size=settings.batch_size,
                seed=settings.seed,
                clips_per_scene=settings.clips_per_scene,
            ),
            make_flow(opened, DTYPES[settings.backbone.dtype]),
            Provenance(
                backbone_id=settings.backbone.name,
                dataset_version=opened.data.version_id,
                recipe=settings.model_dump(mode="json", by_alias=True),
            ),
            caption_dropout=settings.caption_dropout,
            contrast=settings.contrast,
            counterfactual_noise=settings.counterfactual_noise,
            ramp_steps=settings.adapter.ramp_steps if given is None else 0,  # what is given acts already
            gradient_checkpointing=settings.gradient_checkpointing,
        )

    def trainable(self, sizes: Sizes) -> dict[str, int]:
        """Return the parameters of control and LoRA, for every transformer that is adapted."""
        control, lora = adapter_counts(sizes.transformer.config, sizes.adapter)
        counts: dict[str, int] = {}
        for name in sizes.experts:
            counts |= {f"{name}: control": control, f"{name}: LoRA": lora}
        return counts


def _layers(opened: Opened) -> int:
    layers: int = getattr(opened.pipe, opened.experts[0]).config.num_layers
    return layers


TASK = ControlParts()
