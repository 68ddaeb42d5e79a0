"""What a person may say about a training run: the `[train]` section of a recipe. Declared once, frozen, unknown keys refused.

The defaults are the reference recipe of DESIGN section 4. Nothing here needs torch.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, field_validator, model_validator

from generator.recipe.backbone_grid import DEFAULT_BACKBONE
from generator.recipe.section import Section
from scenes.errors import InputError, closest
from trainer.config.control import AdapterSettings
from trainer.methods import DEFAULT_METHOD, METHODS, Method

# Keys of settings among what decides a run, as earlier versions recorded them: their runs go on.
RECORDED = {"method": "what", "counterfactual_noise": "contradiction"}
CLIPS = "clips to learn from"  # the key of their digest among what decides a run


def _odd(frames: int) -> int:
    """Refuse numbers of frames that no video autoencoder takes; which of the others fit, the backbone decides."""
    if frames % 2 == 0:
        raise ValueError(f"{frames} frames cannot be encoded; give 4n + 1, such as 1, 5 or 9")
    return frames


Frames = Annotated[int, Field(ge=1, le=1025), AfterValidator(_odd)]
DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


class BackboneSettings(Section):
    """The frozen model that is adapted (or, for method = transformer or vae, trained whole) and how it is held in memory."""

    name: str = Field(
        default=DEFAULT_BACKBONE, description="hub id, owner/name@revision, folder, tiny (bundled) or tiny-random"
    )
    dtype: Literal["bfloat16", "float32"] = Field(default="bfloat16", description="dtype of the frozen weights")
    quantization: Literal["none", "fp8", "int8", "nf4"] = Field(
        default="none", description="how the frozen transformer is packed"
    )
    experts: Literal["all", "high_noise", "low_noise"] = Field(
        default="all", description="which of two experts to adapt (Wan2.2 A14B); a backbone with one has only all"
    )
    train_text_encoder: bool = Field(default=False, description="method = transformer: the text encoder trains with it")
    text_max_length: int = Field(default=512, ge=1, le=4096, description="text tokens, padded and cut to this")
    offload: Literal["none", "cpu", "disk"] = Field(
        default="disk", description="where text encoder and VAE go while training: stay, main memory, or are loaded again"
    )
    blocks_to_swap: int = Field(
        default=0, ge=0, le=1024, description="last blocks whose frozen weights wait in main memory until they are needed"
    )


class OptimizerSettings(Section):
    """How weights move."""

    name: Literal["adamw", "adamw_fused", "adamw_8bit", "adafactor", "muon"] = Field(
        default="adamw", description="the optimizer; muon for matrices, AdamW for the rest"
    )
    learning_rate: float = Field(default=2e-5, gt=0, description="after warm-up")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        default=(0.9, 0.99), description="decay of the moments"
    )
    weight_decay: float = Field(default=0.01, ge=0, description="decoupled weight decay")
    warmup_steps: int = Field(default=100, ge=0, description="steps of linear warm-up")
    schedule: Literal["constant", "cosine", "linear"] = Field(default="constant", description="after warm-up, to 0 at the end")
    clip_norm: float = Field(default=1.0, ge=0, description="largest norm of the gradient, 0 for no limit")
    ema_decay: float = Field(default=0.0, ge=0, lt=1, description="decay of the averaged weights that are saved, 0 for none")
    max_loss_factor: float = Field(
        default=30.0, ge=0, description="stop when a loss is above this multiple of its running median, 0 for never"
    )


class CheckpointSettings(Section):
    """When a run can be resumed."""

    every: int = Field(default=250, ge=1, description="steps between checkpoints")
    minutes: float = Field(
        default=1.0, ge=0, description="one more when this much work would be lost, 0 for none; it stays until the next ones"
    )
    keep: int = Field(default=3, ge=1, description="the last so many of those by steps stay, and the best ones")


class ValidationSettings(Section):
    """Loss on held-out scenes at fixed noise and fixed times."""

    every: int = Field(default=250, ge=0, description="steps between validations, 0 for none")
    times: int = Field(default=4, ge=1, le=64, description="fixed times per clip, midpoints of equal shares of the training's")
    clips: int = Field(default=64, ge=1, description="clips at most, spread over the split")


class PreviewSettings(Section):
    """Sweeps generated during the run, with what the probes read in them."""

    every: int = Field(default=0, ge=0, description="steps between previews, 0 for none")
    prompts: tuple[str, ...] = Field(default=(), description="prompts; captions of held-out scenes if none are given")
    values: int = Field(default=5, ge=2, le=33, description="control values of a sweep, from -1 to 1")
    frames: Frames = Field(default=9, description="frames, 4n+1")
    height: int = Field(default=512, ge=16, description="pixels")
    width: int = Field(default=512, ge=16, description="pixels")
    sampling_steps: int = Field(default=25, ge=1, description="denoising steps")
    guidance: float = Field(default=5.0, ge=0, description="classifier-free guidance scale")
    seed: int = Field(default=0, ge=0, lt=2**63, description="seed of the noise, the same for every value")


class TrainSettings(Section):
    """A whole `[train]` section."""

    model_config = ConfigDict(populate_by_name=True)

    method: str = Field(
        default=DEFAULT_METHOD,
        description=f"what trains: {', '.join(f'{method.name} ({method.summary})' for method in METHODS.values())}",
        json_schema_extra={"enum": list(METHODS)},
    )
    dataset: str = Field(description="folder of the dataset")
    ref: str = Field(default="latest", description="version or tag of the dataset; it says which scenes are held out")
    train_split: str = Field(default="train", description="split to learn from")
    validation_split: str = Field(default="validation", description="split held out")
    out: str | None = Field(default=None, description="folder of the run; runs/NAME of the recipe's file if not given")
    start_from: str | None = Field(
        default=None, alias="from", description="adapter or checkpoint whose weights a new training starts from"
    )
    cache: str | None = Field(default=None, description="folder of latents and text embeddings; the user's cache if not given")
    steps: int = Field(default=2000, ge=1, description="optimizer steps")
    batch_size: int = Field(default=1, ge=1, description="clips in a micro-batch")
    clips_per_scene: int = Field(
        default=1, ge=1, description="clips of a scene together in a micro-batch, under the same noise, 1 for no such order"
    )
    contrast: float = Field(
        default=1.0, gt=0, description="weight, in the loss, of what tells a scene's clips apart; 1 leaves the loss as it is"
    )
    counterfactual_noise: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of clips whose noise shows another clip of their scene, against their control",
    )
    accumulation: int = Field(default=4, ge=1, description="micro-batches in an optimizer step, on each process")
    seed: int = Field(default=0, ge=0, lt=2**63, description="seed of everything drawn")
    flow_shift: float = Field(default=1.0, gt=0, description="shift of the training times towards noise, 1 for none")
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N")
    caption_dropout: float = Field(default=0.0, ge=0, lt=1, description="share of clips that learn without their caption")
    crop_frames: tuple[Frames, ...] = Field(
        default=(1, 5, 9), min_length=1, description="lengths of the crops that an autoencoder learns from, each 4n+1"
    )
    precision: Literal["bf16", "no"] = Field(default="bf16", description="autocast of the forward pass; weights stay float32")
    gradient_checkpointing: bool = Field(default=True, description="compute activations twice instead of keeping them")
    compile: bool = Field(default=False, description="torch.compile the blocks")
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = Field(
        default=("tensorboard",), description="where curves go, beside metrics.jsonl"
    )
    backbone: BackboneSettings = BackboneSettings()
    adapter: AdapterSettings = AdapterSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    checkpoints: CheckpointSettings = CheckpointSettings()
    validation: ValidationSettings = ValidationSettings()
    previews: PreviewSettings = PreviewSettings()

    @field_validator("method")
    @classmethod
    def _known_method(cls, value: str) -> str:
        if value not in METHODS:
            raise ValueError(f"unknown method '{value}'{closest(value, METHODS)}; known: {', '.join(METHODS)}")
        return value

    @field_validator("device")
    @classmethod
    def _device(cls, value: str) -> str:
        if DEVICE.fullmatch(value) is None:
            raise ValueError("allowed are auto, cpu, cuda and cuda:N")
        return value

    @model_validator(mode="after")
    def _whole_models_train_otherwise(self) -> TrainSettings:
        method = METHODS[self.method]
        if method.adapter is None and self.backbone.quantization != "none":
            raise ValueError(f"backbone.quantization packs frozen weights, and method = '{self.method}' trains them; use none")
        if self.backbone.blocks_to_swap:
            self._check_swap(method)
        if not method.controls and self.clips_per_scene > 1:
            raise ValueError(f"clips_per_scene teaches a control, and method = '{self.method}' learns none; use 1")
        if self.clips_per_scene == 1 and (self.contrast != 1 or self.counterfactual_noise):
            raise ValueError("contrast and counterfactual_noise compare clips of a scene; give clips_per_scene above 1")
        if self.start_from is not None and method.adapter is None:
            raise ValueError(
                f"from names an adapter, and method = '{self.method}' trains none; give the model as backbone.name"
            )
        if self.previews.every and method.generation is None:
            raise ValueError(f"previews.every: {method.summary} alone generates nothing; use 0")
        return self

    def _check_swap(self, method: Method) -> None:
        """Raise ValueError for settings under which blocks cannot wait in main memory, or nothing would be gained by it."""
        own = self.backbone
        if method.adapter is None:
            raise ValueError(f"backbone.blocks_to_swap moves frozen weights, and method = '{self.method}' trains them; use 0")
        if own.quantization == "nf4":
            raise ValueError(
                "backbone.blocks_to_swap: bitsandbytes' nf4 weights stay on the device; use 0, or backbone.quantization = 'fp8'"
            )
        if self.compile:
            raise ValueError(
                "backbone.blocks_to_swap changes where a block's weights are, which compiled blocks do not see; use 0"
            )
        narrowed = own.dtype == "float32" and self.precision == "bf16"
        if not self.gradient_checkpointing and (narrowed or own.quantization != "none"):
            raise ValueError(
                "backbone.blocks_to_swap: without gradient_checkpointing torch keeps each weight as it was computed with, and "
                "nothing is gained; set gradient_checkpointing = true, or backbone.dtype = 'bfloat16' and no quantization"
            )


# A run may be resumed with other values of these: they do not change its weights, or not on purpose (device, compile).
WITHOUT_EFFECT = frozenset(
    {
        "dataset", "ref", "train_split", "validation_split", "out", "cache", "device", "trackers", "checkpoints", "validation",
        "previews", "gradient_checkpointing", "compile", "start_from",
    }
)  # fmt: skip
# What earlier versions recorded among what decides a run, and does not.
NO_LONGER_COMPARED = frozenset(
    {
        "dataset version",
        "encodings",
        "train_split",
        "gradient_checkpointing",
        "compile",
        "optimizer.max_loss_factor",
    }
)


def deciding_settings(settings: TrainSettings) -> dict[str, Any]:
    """Return what decides a run's weights, flat (`optimizer.betas`): it must be the same for a run to go on.

    Clips and backbone are not among it: `trainer.training.setup` adds what is in them, wherever they lie. With a constant
    schedule `steps` is not, so that a finished run may be made longer.
    """
    tree = settings.model_dump(mode="json", exclude=set(WITHOUT_EFFECT))
    tree |= {former: tree.pop(key) for key, former in RECORDED.items()}
    if settings.optimizer.schedule == "constant":
        del tree["steps"]
    if METHODS[settings.method].encodes:
        del tree["crop_frames"]
    for key in ("name", "offload", "blocks_to_swap"):
        del tree["backbone"][key]
    del tree["optimizer"]["max_loss_factor"]  # stops a run, and changes no step
    return flat(tree)


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a tree of mappings as one mapping with dotted keys."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return leaves


def digest(values: Mapping[str, Any]) -> str:
    """Return a hash of flat values."""
    return hashlib.sha256(json.dumps(dict(values), sort_keys=True).encode()).hexdigest()


def require_same(before: Mapping[str, Any], now: Mapping[str, Any], run: str) -> None:
    """Raise InputError naming what differs between a run's first settings and those to go on with."""
    compared = {*before, *now} - NO_LONGER_COMPARED
    if "crop_frames" not in now:  # earlier versions recorded it of what crops nothing, too
        compared -= {"crop_frames"}
    if CLIPS not in before:  # of an earlier version, which knows its clips by the dataset's version only
        compared = (compared - {CLIPS}) | {"dataset version"}
    different = [key for key in sorted(compared) if before.get(key) != now.get(key)]
    if different:
        shown = ", ".join(f"{_name(key)} was {_words(before, key)}, is {_words(now, key)}" for key in different[:3])
        more = f" and {len(different) - 3} more" if len(different) > 3 else ""
        raise InputError(
            f"{run} holds checkpoints of another run: {shown}{more}; give another --out, or the settings it began with"
        )


def _name(key: str) -> str:
    return next((present for present, former in RECORDED.items() if former == key), key)


def _words(values: Mapping[str, Any], key: str) -> str:
    return json.dumps(values[key]) if key in values else "absent"
