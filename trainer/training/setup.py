"""Makes a run out of settings: the device and its processes, the data, the backbone, the task, and what decides the run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

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
from trainer.control import AxisControl
from trainer.control.config import adapter_config
from trainer.data.cache import TensorCache, module_digest
from trainer.data.encoding import Encoded, EncodedReader, Report, Share, encode_all
from trainer.data.fingerprint import clips_digest
from trainer.data.records import TrainingData, check_sizes, open_data
from trainer.methods import METHODS
from trainer.training.early import check_early
from trainer.training.given import Given, check_given, find_given
from trainer.training.tasks.base import Task
from trainer.training.tasks.flow import RectifiedFlow
from trainer.training.together import all_do
from trainer.weights.precision import bfloat16_pays

if TYPE_CHECKING:
    from trainer.training.callbacks.validation import Validation
    from trainer.training.dry_run import Sizes

TIMEOUT = timedelta(hours=2)  # other processes wait while the first one validates and makes previews
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
KNOWN_KINDS = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU, DistributedType.FSDP)


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
    device: torch.device  # that it trains on
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
class PreparedRun:
    """A run ready to start: `Loop(run.task, settings, folder, accelerator, identity=run.identity)`."""

    opened: Opened
    task: Task
    identity: Mapping[str, Any]  # what decides the run, flat
    encoded: Encoded | None
    reader: EncodedReader | None


class TaskParts(Protocol):
    """How a method trains: what `Method.task` of `trainer.methods` names."""

    @property
    def validation(self) -> type[Validation]:
        """The callback that validates it on held-out clips."""
        ...

    def check(self, opened: Opened) -> None:
        """Raise InputError for settings, data and a backbone, which may have no weights, that do not go together."""
        ...

    def make(self, opened: Opened, reader: EncodedReader | None) -> Task:
        """Return the task; `reader` is there where the method learns from what was encoded."""
        ...

    def trainable(self, sizes: Sizes) -> dict[str, int]:
        """Return how many parameters would train, by part; no weight is needed to tell."""
        ...


def task_parts(settings: TrainSettings) -> TaskParts:
    """Return how the method of the settings trains."""
    parts: TaskParts = METHODS[settings.method].load("task")
    return parts


def open_run(settings: TrainSettings, device: torch.device, *, weightless: bool = False, folder: Path | None = None) -> Opened:
    """Open a run's dataset and load its backbone on the CPU (packed weights may be on `device`).

    With `weightless` no weight is loaded: what a dry run needs, offline for the known backbones. A run that goes on in `folder`
    needs the weights that it was given no longer. Raises InputError in one line
    for a dataset without the axis asked for, a backbone that is not there, clips whose frames or size it cannot take, and all
    else that can be refused before anything is encoded (`trainer.training.early`).
    """
    method, parts = METHODS[settings.method], task_parts(settings)
    axes = settings.adapter.axes if method.controls else ()
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
    opened = Opened(settings=settings, data=data, pipe=pipe, device=device, given=given)
    parts.check(opened)
    check_early(settings, data, pipe)
    return replace(opened, notes=(*_precision_notes(opened), *(_notes(opened) if method.encodes else ())))


def _precision_notes(opened: Opened) -> tuple[str, ...]:
    if opened.settings.precision != "bf16" or not _stays_float32(opened):
        return ()
    return (
        "this CPU has no hardware for bfloat16, so train.precision = 'bf16' computes in float32, which is several times faster "
        "here and rounds less",
    )


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
        dtype=DTYPES[own.dtype] if METHODS[settings.method].adapter is not None else torch.float32,
        vae_dtype=torch.float32,  # as Wan is published; encoding happens once, and small controls change little
        compiled=settings.compile,
    )


def prepare_run(opened: Opened, accelerator: Accelerator, report: Report | None = None) -> PreparedRun:
    """Encode what is not in the cache and make the task; all processes share the encoding."""
    settings, pipe = opened.settings, opened.pipe
    identity = deciding_settings(settings) | {
        "adapter.axes": [axis.name for axis in opened.axes],
        "dataset version": opened.data.version_id,  # to be told; the clips are what is compared
        **{f"backbone {name}": fingerprint(part) for name, part in experts(pipe).items()},
    }
    if opened.given is not None:
        identity["from"] = opened.given.digest
    parts = task_parts(settings)
    if not METHODS[settings.method].encodes:
        identity |= {"backbone vae": module_digest(pipe.vae), CLIPS: clips_digest(opened.data, {}, {})}
        return PreparedRun(opened=opened, task=parts.make(opened, None), identity=identity, encoded=None, reader=None)
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
    return PreparedRun(opened=opened, task=parts.make(opened, reader), identity=identity, encoded=encoded, reader=reader)


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
    """Return the transformers that the settings' choice of experts means in a backbone.

    Raises InputError for an expert that the backbone does not have.
    """
    present = tuple(experts(pipe))
    if settings.backbone.experts == "all":
        return present
    if len(present) == 1:
        raise InputError(
            f"backbone {settings.backbone.name} has one transformer, backbone.experts = '{settings.backbone.experts}' chooses "
            "between two; use 'all'"
        )
    return (EXPERTS[0],) if settings.backbone.experts == "high_noise" else (EXPERTS[1],)


def make_flow(opened: Opened, dtype: torch.dtype) -> RectifiedFlow:
    """Return the flow objective of a run, its inputs in the dtype of the backbone's weights."""
    return RectifiedFlow.of(
        opened.pipe, opened.experts, shift=opened.settings.flow_shift, dtype=dtype, autocast=autocast_dtype(opened)
    )


def autocast_dtype(opened: Opened) -> torch.dtype | None:
    """Return the dtype of the forward pass where it is not the weights' own.

    A CPU without hardware for bfloat16 computes with float32 weights as they are, which `open_run` notes.
    """
    return None if opened.settings.precision != "bf16" or _stays_float32(opened) else torch.bfloat16


def _stays_float32(opened: Opened) -> bool:
    own = opened.settings.backbone
    return own.dtype == "float32" and own.quantization == "none" and not bfloat16_pays(opened.device.type)
