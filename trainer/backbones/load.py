"""Loads a backbone as an ordinary WanPipeline, and tells one backbone from another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import ModelMixin, WanPipeline, WanTransformer3DModel
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import safe_open

from scenes.errors import InputError, StopdownError
from trainer.backbones.backbone_files import check_files
from trainer.backbones.locate import locate_backbone, pinned_revision
from trainer.weights.key_names import backbone_names
from trainer.weights.strict import printable

ARCHITECTURE = (
    "patch_size",
    "num_attention_heads",
    "attention_head_dim",
    "in_channels",
    "out_channels",
    "text_dim",
    "freq_dim",
    "ffn_dim",
    "num_layers",
    "cross_attn_norm",
    "qk_norm",
    "eps",
)
FINGERPRINT_TENSORS = ("patch_embedding.weight",)
WRITTEN = "_stopdown_written"  # the attribute that `_remember_written` sets
EXPERTS = ("transformer", "transformer_2")
Part = TypeVar("Part", bound=ModelMixin)
MERGED = "_stopdown_merged"  # a transformer's configuration says under this key what was merged into its projections


def load_backbone(
    name: str, *, cache: Path | None = None, pipeline: type[WanPipeline] = WanPipeline, **options: Any
) -> WanPipeline:
    """Return the pipeline of a folder, hub id, `owner/name@revision` or `tiny-random`; options are `from_pretrained`'s.

    Raises InputError in one line for a backbone that cannot be found, reached or read, and one that is not text-to-video.
    """
    location = locate_backbone(name, cache=cache, revision=options.get("revision"))
    if Path(location).is_dir():
        check_files(Path(location), name)
    with one_line(f"backbone {name}"):
        loaded = pipeline.from_pretrained(location, use_safetensors=True, **(options | pinned_revision(name)))
    for expert in experts(loaded).values():
        _remember_written(expert)
        if expert.config.image_dim is not None or expert.config.added_kv_proj_dim is not None:
            raise InputError(f"backbone {name} takes images; control adapters need a text-to-video one")
    return loaded


def load_component(kind: type[Part], name: str, subfolder: str, *, dtype: torch.dtype, cache: Path | None = None) -> Part:
    """Return one component of a backbone (`vae`, `transformer`); raises InputError in one line, as `load_backbone` does."""
    location = locate_backbone(name, cache=cache)
    if Path(location).is_dir():
        check_files(Path(location), name)
    with one_line(f"'{subfolder}' of backbone {name}"):
        return kind.from_pretrained(location, subfolder=subfolder, dtype=dtype, use_safetensors=True, **pinned_revision(name))


@contextmanager
def one_line(source: str) -> Iterator[None]:
    """Say in one line why a stranger's files do not load: the libraries raise nearly anything over a malformed one."""
    try:
        yield
    except (StopdownError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        first = printable(str(error).strip().splitlines()[0]) if str(error).strip() else type(error).__name__
        raise InputError(f"{source} cannot be loaded ({first}); check that its files are complete") from error


def experts(pipe: WanPipeline) -> dict[str, WanTransformer3DModel]:
    """Return a pipeline's transformers by component name: one, or two for a mixture by noise level."""
    parts = {name: getattr(pipe, name, None) for name in EXPERTS}
    return {name: part for name, part in parts.items() if part is not None}


def fingerprint(transformer: WanTransformer3DModel) -> str:
    """Return a digest that tells a backbone from others, whatever dtype or quantization it was loaded in.

    SHA-256 of the architecture and of every vector (biases, norms), modulation table and the patch embedding, rounded to
    bfloat16: those are never quantized and few (2.7 million values of 14 billion), so it takes no time. An adapter on the
    transformer does not change it. Float16 rounds otherwise than bfloat16: of a backbone that `load_backbone` loaded so, the
    values in its files count; a copy that was saved as float16 has another one. A merged LoRA changes the projections alone,
    so that what was merged counts as well (`trainer.adapters.merge`).
    """
    digest = hashlib.sha256()
    architecture = {key: transformer.config[key] for key in ARCHITECTURE}
    if MERGED in transformer.config:
        architecture[MERGED] = transformer.config[MERGED]
    digest.update(json.dumps(architecture, sort_keys=True, default=list).encode())
    written: Mapping[str, torch.Tensor] = getattr(transformer, WRITTEN, {})
    for name in sorted(backbone_names(transformer.config.num_layers).values()):
        tensor = written[name] if name in written else _backbone_tensor(transformer, name)
        if _counts(name, tensor):
            rounded = tensor.detach().to("cpu", torch.bfloat16).contiguous()
            digest.update(f"{name} {list(tensor.shape)}".encode())
            digest.update(rounded.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def forget_written(transformer: WanTransformer3DModel) -> None:
    """Let the fingerprint follow the values in memory, of a transformer that is about to be saved as it is."""
    if hasattr(transformer, WRITTEN):
        delattr(transformer, WRITTEN)


def _remember_written(transformer: WanTransformer3DModel) -> None:
    """Keep, of a transformer that was loaded as float16, the values in its files that its fingerprint is made of."""
    own = {name: _backbone_tensor(transformer, name) for name in backbone_names(transformer.config.num_layers).values()}
    lost = {name for name, tensor in own.items() if _counts(name, tensor) and tensor.dtype == torch.float16}
    if not lost:
        return
    written: dict[str, torch.Tensor] = {}
    for path in sorted(Path(str(transformer.config.get("_name_or_path", ""))).glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            written |= {name: file.get_tensor(name).to(torch.bfloat16) for name in lost & set(file.keys())}
    setattr(transformer, WRITTEN, written)


def _counts(name: str, tensor: torch.Tensor) -> bool:
    return tensor.ndim == 1 or name.endswith("scale_shift_table") or name in FINGERPRINT_TENSORS


def _backbone_tensor(transformer: WanTransformer3DModel, name: str) -> torch.Tensor:
    path, _, attribute = name.rpartition(".")
    module = transformer.get_submodule(path)
    if isinstance(module, BaseTunerLayer):
        module = module.get_base_layer()
    return getattr(module, attribute)
