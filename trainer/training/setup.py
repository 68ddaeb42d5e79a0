"""Makes a run out of settings: the device and its processes, the data, the backbone, the task, and what decides the run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, InitProcessGroupKwargs
from diffusers import WanPipeline

from scenes.errors import InputError
from trainer.backbones.hub import locate_dataset
from trainer.backbones.load import EXPERTS, experts, fingerprint
from trainer.backbones.locate import cache_folder
from trainer.backbones.quantize import check_quantization, load_quantized
from trainer.backbones.text_length import length_notes
from trainer.backbones.weightless import weightless_pipeline
from trainer.config.train import CLIPS, TrainSettings, deciding_settings
from trainer.control import AdapterConfig, AxisControl, ControlConfig, LoraSettings, resolve_blocks
from trainer.data.batches import FlowBatches
from trainer.data.cache import TensorCache, module_digest
from trainer.data.encoding import Encoded, EncodedReader, Report, Share, encode_all
from trainer.data.fingerprint import clips_digest
from trainer.data.frames import FrameBatches
from trainer.data.records import TrainingData, check_sizes, open_data
from trainer.training.early import check_early
from trainer.training.given import Given, check_given, find_given, load_given
from trainer.training.tasks import ControlTask, TransformerTask, VaeTask
from trainer.training.tasks.base import Task
from trainer.training.tasks.control import Provenance, attach_adapters
from trainer.training.tasks.flow import Flow
from trainer.training.tasks.transformer import TextParts
from trainer.training.together import all_do

TIMEOUT = timedelta(hours=2)  # other processes wait while the first one validates and makes previews
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
KNOWN_KINDS = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU, DistributedType.FSDP)
RESULT = {"control": "adapter", "transformer": "model", "vae": "model"}  # the folder of what a user takes away


def check_device(device: str) -> None:
    """Raise InputError for a CUDA device that this machine lacks."""
    if not device.startswith("cuda"):
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise InputError(f"device '{device}' was asked for and this machine has no usable CUDA GPU; use --device cpu or auto")
    _, _, index = device.partition(":")
    if index and int(index) >= count:
        raise InputError(f"device '{device}' was asked for and this machine has {count} CUDA GPUs; give cuda:0 to {count - 1}")


def make_accelerator(settings: TrainSettings) -> Accelerator:
    """Return the accelerator of the settings' device, in this process or in one of an `accelerate launch`.

    Tasks choose their precision themselves, so accelerate's autocast stays off. Raises InputError for a CUDA device that is
    not there, and for a kind of parallel training that the loop does not know.
    """
    check_device(settings.device)
    if ":" in settings.device:
        torch.cuda.set_device(settings.device)
    accelerator = Accelerator(
        cpu=settings.device == "cpu", mixed_precision="no", kwargs_handlers=[InitProcessGroupKwargs(timeout=TIMEOUT)]
    )
    _check_launched(accelerator)
    check_parallel(settings, accelerator.distributed_type, second=getattr(accelerator, "is_fsdp2", False))
    return accelerator


def check_parallel(settings: TrainSettings, kind: DistributedType, *, second: bool) -> None:
    """Raise InputError for a kind of parallel training that the loop does not know, and what does not go with it.

    `second` is whether FSDP is its version 2.
    """
    if kind not in KNOWN_KINDS or (kind == DistributedType.FSDP and not second):
        raise InputError(
            f"accelerate is configured for {kind.value}{' version 1' if kind == DistributedType.FSDP else ''}; training knows "
            "plain processes (DDP) and FSDP version 2 (fsdp_version: 2); run `accelerate config` again"
        )
    if kind == DistributedType.FSDP and settings.backbone.blocks_to_swap:
        raise InputError(
            "backbone.blocks_to_swap and FSDP both decide where a block's weights are; set train.backbone.blocks_to_swap = 0, "
            "or launch without FSDP"
        )
    if kind == DistributedType.FSDP and (settings.validation.every or settings.previews.every):
        raise InputError(
            "validation and previews run on one process and need the whole model there, FSDP spreads it; set "
            "train.validation.every = 0 and train.previews.every = 0, or launch without FSDP"
        )


def _check_launched(accelerator: Accelerator) -> None:
    """Refuse what `accelerate launch --cpu --num_processes N` does without mpirun: it prepares N processes and starts one."""
    prepared = "MASTER_PORT" in os.environ and os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
    if prepared and accelerator.num_processes == 1:
        raise InputError(
            "`accelerate launch --cpu` was asked for several processes and started one process, as it does without mpirun; use "
            "`accelerate launch --multi_gpu --num_processes N -m stopdown train RECIPE --device cpu`"
        )


@dataclass(frozen=True, kw_only=True)
class Opened:
    """Data and backbone of a run, checked against each other; nothing is encoded yet."""

    settings: TrainSettings
    data: TrainingData
    pipe: WanPipeline
    given: Given | None = None  # weights to start from
    notes: tuple[str, ...] = ()  # lines that a person should read, beside those of the data

    @property
    def experts(self) -> tuple[str, ...]:
        """The transformers that train, by component name."""
        return chosen_experts(self.settings, self.pipe)

    @property
    def axes(self) -> tuple[AxisControl, ...]:
        """The axes to learn; none for what is trained whole."""
        return self.data.axes


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run ready to start: `Loop(run.task, settings, folder, accelerator, identity=run.identity)`."""

    opened: Opened
    task: Task
    identity: Mapping[str, Any]  # what decides the run, flat
    encoded: Encoded | None
    reader: EncodedReader | None


def open_run(settings: TrainSettings, device: torch.device, *, weightless: bool = False, folder: Path | None = None) -> Opened:
    """Open a run's dataset and load its backbone on the CPU (packed weights may be on `device`).

    With `weightless` no weight is loaded: what a dry run needs, offline for the known backbones. A run that goes on in `folder`
    needs the weights that it was given no longer. Raises InputError in one line
    for a dataset without the axis asked for, a backbone that is not there, clips whose frames or size it cannot take, and all
    else that can be refused before anything is encoded (`trainer.training.early`).
    """
    axes = settings.adapter.axes if settings.what == "control" else ()
    data = open_data(
        locate_dataset(Path(settings.dataset).expanduser()),
        settings.ref,
        axes,
        train_split=settings.train_split,
        validation_split=settings.validation_split,
    )
    pipe = _backbone(settings, device, weightless)
    check_sizes((*data.train, *data.validation), pipe)
    given = None if settings.start_from is None else find_given(settings.start_from, folder)
    opened = Opened(settings=settings, data=data, pipe=pipe, given=given)
    if settings.what != "vae":
        Flow.of(pipe, opened.experts)  # says which expert is absent
    if settings.what == "control":
        adapter_config(settings, data.axes, getattr(pipe, opened.experts[0]).config.num_layers)  # says which block is absent
    check_early(settings, data, pipe)
    return opened if settings.what == "vae" else replace(opened, notes=_notes(opened))


def _notes(opened: Opened) -> tuple[str, ...]:
    """Return what a person should know before anything is encoded; raises InputError for given weights that do not fit.

    Without weights there is no tokenizer either, and whether texts are cut remains unsaid.
    """
    settings, pipe, data = opened.settings, opened.pipe, opened.data
    texts = {f"clip {record.clip_id}": record.caption for record in (*data.train, *data.validation)}
    texts |= {f"prompt {number}": prompt for number, prompt in enumerate(settings.previews.prompts, start=1)}
    remedy = "raise train.backbone.text_max_length"
    notes = () if pipe.tokenizer is None else length_notes(pipe.tokenizer, texts, settings.backbone.text_max_length, remedy)
    if opened.given is None:
        return notes
    saved = opened.given.saved
    if saved is None:
        return (
            *notes,
            f"train.from = {opened.given.place} is gone; the run goes on from its checkpoint, which needs it no longer",
        )
    parts = {name: getattr(pipe, name) for name in opened.experts}
    layers = next(iter(parts.values())).config.num_layers
    return (*notes, *check_given(opened.given.place, saved, adapter_config(settings, opened.axes, layers), parts))


def _backbone(settings: TrainSettings, device: torch.device, weightless: bool) -> WanPipeline:
    own = settings.backbone
    if weightless:
        check_quantization(own.quantization, device, compiled=settings.compile)
        return weightless_pipeline(own.name)
    return load_quantized(
        own.name,
        own.quantization,
        device=device,
        dtype=DTYPES[own.dtype] if settings.what == "control" else torch.float32,
        vae_dtype=torch.float32,  # as Wan is published; encoding happens once, and small controls change little
        compiled=settings.compile,
    )


def prepare_run(opened: Opened, accelerator: Accelerator, report: Report | None = None) -> Run:
    """Encode what is not in the cache and make the task; all processes share the encoding."""
    settings, pipe = opened.settings, opened.pipe
    identity = deciding_settings(settings) | {
        "adapter.axes": [axis.name for axis in opened.axes],
        "dataset version": opened.data.version_id,  # to be told; the clips are what is compared
        **{f"backbone {name}": fingerprint(part) for name, part in experts(pipe).items()},
    }
    if opened.given is not None:
        identity["from"] = opened.given.digest
    if settings.what == "vae":
        identity |= {"backbone vae": module_digest(pipe.vae), CLIPS: clips_digest(opened.data, {}, {})}
        return Run(opened=opened, task=_vae(opened), identity=identity, encoded=None, reader=None)
    cache = TensorCache(cache_path(settings))
    encode = partial(
        encode_all,
        pipe,
        opened.data,
        cache,
        prompts=settings.previews.prompts if settings.previews.every else (),
        text_length=settings.backbone.text_max_length,
        device=accelerator.device,
        share=_share(accelerator),
        offload="none" if settings.backbone.train_text_encoder else settings.backbone.offload,
        report=report,
    )
    encoded = all_do(accelerator, encode)  # which is where they wait for each other, too
    identity[CLIPS] = clips_digest(opened.data, encoded.latents, encoded.texts)
    reader = EncodedReader(encoded, cache)
    task = FLOW_TASKS[settings.what](opened, reader)
    return Run(opened=opened, task=task, identity=identity, encoded=encoded, reader=reader)


def _share(accelerator: Accelerator) -> Share:
    """Return a process's part of the encoding: of its machine's processes, because machines may have caches of their own."""
    local = os.environ.get("LOCAL_WORLD_SIZE")  # torchrun's, and so accelerate's
    if local is None:
        return Share(rank=accelerator.process_index, ranks=accelerator.num_processes)
    return Share(rank=accelerator.local_process_index, ranks=int(local))


def cache_path(settings: TrainSettings) -> Path:
    """Return where latents and text embeddings are kept."""
    return Path(settings.cache).expanduser() if settings.cache is not None else cache_folder() / "encodings"


def chosen_experts(settings: TrainSettings, pipe: WanPipeline) -> tuple[str, ...]:
    """Return the transformers that the settings' choice of experts means in a backbone."""
    present = tuple(experts(pipe))
    if settings.backbone.experts == "all":
        return present
    if len(present) == 1:
        raise InputError(
            f"backbone {settings.backbone.name} has one transformer, backbone.experts = '{settings.backbone.experts}' chooses "
            "between two; use 'all'"
        )
    return (EXPERTS[0],) if settings.backbone.experts == "high_noise" else (EXPERTS[1],)


def adapter_config(settings: TrainSettings, axes: tuple[AxisControl, ...], num_layers: int) -> AdapterConfig:
    """Return the adapter that the settings ask for, on a backbone of `num_layers` blocks."""
    chosen = settings.adapter
    control = ControlConfig(
        axes=axes,
        blocks=resolve_blocks(chosen.blocks, num_layers),
        rank=chosen.rank,
        alpha=chosen.alpha,
        tokens=chosen.tokens,
        gate=chosen.gate,
        gate_value=chosen.gate_value,
    )
    lora = LoraSettings(rank=chosen.lora_rank, alpha=chosen.lora_alpha)
    return AdapterConfig(
        control=None if chosen.arm == "lora_only" else control, lora=None if chosen.arm == "adapter_only" else lora
    )


def attach_new(opened: Opened) -> dict[str, Any]:
    """Put fresh adapters on the backbone, as the settings ask; returns them by component name."""
    layers = getattr(opened.pipe, opened.experts[0]).config.num_layers
    config = adapter_config(opened.settings, opened.axes, layers)
    return attach_adapters(opened.pipe, config, trained=opened.experts, seed=opened.settings.seed)


def _flow(opened: Opened, dtype: torch.dtype) -> Flow:
    return Flow.of(
        opened.pipe, opened.experts, shift=opened.settings.flow_shift, dtype=dtype, autocast=autocast_dtype(opened.settings)
    )


def autocast_dtype(settings: TrainSettings) -> torch.dtype | None:
    """Return the dtype of the forward pass where it is not the weights' own."""
    return torch.bfloat16 if settings.precision == "bf16" else None


def _control(opened: Opened, reader: EncodedReader) -> ControlTask:
    settings, given = opened.settings, opened.given
    adapters = attach_new(opened)
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
        _flow(opened, DTYPES[settings.backbone.dtype]),
        Provenance(
            backbone_id=settings.backbone.name,
            dataset_version=opened.data.version_id,
            recipe=settings.model_dump(mode="json", by_alias=True),
        ),
        caption_dropout=settings.caption_dropout,
        contrast=settings.contrast,
        contradiction=settings.contradiction,
        ramp_steps=settings.adapter.ramp_steps if given is None else 0,  # what is given acts already
        gradient_checkpointing=settings.gradient_checkpointing,
    )


def _transformer(opened: Opened, reader: EncodedReader) -> TransformerTask:
    settings, pipe = opened.settings, opened.pipe
    text = None
    if settings.backbone.train_text_encoder:
        text = TextParts(tokenizer=pipe.tokenizer, encoder=pipe.text_encoder, length=settings.backbone.text_max_length)
    return TransformerTask(
        getattr(pipe, opened.experts[0]),
        FlowBatches(
            opened.data.train,
            reader,
            batch_size=settings.batch_size,
            seed=settings.seed,
            text=None if text is None else text.tokens,
        ),
        _flow(opened, torch.float32),
        text=text,
        caption_dropout=settings.caption_dropout,
        gradient_checkpointing=settings.gradient_checkpointing,
    )


def _vae(opened: Opened) -> VaeTask:
    settings = opened.settings
    batches = FrameBatches(
        opened.data, opened.data.train, batch_size=settings.batch_size, seed=settings.seed, lengths=settings.crop_frames
    )
    return VaeTask(opened.pipe.vae, batches, autocast=autocast_dtype(settings))


FLOW_TASKS: dict[str, Callable[[Opened, EncodedReader], Task]] = {"control": _control, "transformer": _transformer}
