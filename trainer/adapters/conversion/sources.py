"""Reads an adapter from whatever holds one: a folder of this project, a published checkpoint, a ComfyUI or diffusers LoRA."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from scenes.errors import InputError
from trainer.adapters.adapter_weights import LORA_PREFIX, peft_names
from trainer.adapters.card import AdapterCard
from trainer.adapters.saved import SavedAdapter
from trainer.control.config import MAX_ALPHA, AdapterConfig, LoraSettings
from trainer.control.laws import AxisControl
from trainer.formats.comfyui import from_comfyui
from trainer.formats.foreign_lora import read_lora
from trainer.formats.published import LORA_BLOCK, published_axes, read_published
from trainer.weights.key_names import PROJECTIONS, inverse, lora_names
from trainer.weights.strict import printable, rename
from trainer.weights.weights_file import check_floats, read_header, read_tensors

AXES_KEY = "stopdown_axes"  # metadata of published files written here; others' readers pass over it
SETTINGS_KEY = "config"
EMBEDDING = "diffusion_model.fps_conditioning.lin1.weight"  # only a published checkpoint has it
PER_BLOCK = 2 * len(PROJECTIONS)  # LoRA tensors of a block


class AdapterFormat(StrEnum):
    """The formats an adapter comes in, by the names that `--to` takes."""

    DIFFUSERS = "diffusers"
    COMFYUI = "comfyui"
    PUBLISHED = "published"


@dataclass(frozen=True, kw_only=True)
class Source:
    """An adapter of one transformer under this project's names; `card` is there if it came as a folder."""

    path: Path
    format: AdapterFormat
    config: AdapterConfig
    control: dict[str, Tensor]
    lora: dict[str, Tensor]
    card: AdapterCard | None = None

    @property
    def layers(self) -> int:
        """The number of the backbone's blocks, as far as the LoRA tells."""
        return len(self.lora) // PER_BLOCK


def read_source(
    path: Path, *, axes: Sequence[str] | None = None, expert: str | None = None, alpha: float | None = None
) -> Source:
    """Return what a folder or file holds; every tensor is accounted for.

    `axes` names a published file's axes in the order of its scalar's components, `alpha` is its control's where neither the
    file nor a TOML beside it says so, `expert` one of several adapted transformers.
    Raises InputError for what is no adapter, unknown, missing or misshapen tensors, and what must be named and is not.
    """
    if path.is_dir():
        if alpha is not None:
            raise InputError(f"{path} is an adapter's folder, which says its alpha; leave out --alpha")
        return _folder(path, expert)
    if expert is not None:
        raise InputError(f"{path} holds one transformer's adapter; leave out --expert")
    weights, metadata = read_file(path)
    with malformed(path):
        return _of_file(path, weights, metadata, axes, alpha)


@contextmanager
def malformed(path: Path) -> Iterator[None]:
    """Say in one line what a stranger's file made the code trip over: shapes, alphas or metadata that no adapter has.

    What it wraps raises InputError for a malformed file.
    """
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        words = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise InputError(
            f"{path} is malformed ({printable(words)}); its tensors or metadata are no adapter's: make or fetch it again"
        ) from error


def is_whole(path: Path) -> bool:
    """Return whether a file is a LoRA of every projection of all blocks, in one rank, as an adapter's own must be."""
    try:
        read_source(path)
    except InputError:
        return False
    return True


def is_other_lora(path: Path) -> bool:
    """Return whether a file is a LoRA of another program, or of some projections: what `read_source` cannot hold."""
    if path.is_dir() or EMBEDDING in read_header(path).tensors or is_whole(path):
        return False
    read_lora(path)  # says what it is not
    return True


def _of_file(
    path: Path, weights: dict[str, Tensor], metadata: dict[str, str], axes: Sequence[str] | None, alpha: float | None
) -> Source:
    kind = format_of(weights, path)
    if kind is AdapterFormat.PUBLISHED:
        return _published(path, weights, metadata, axes, alpha)
    if axes is not None:
        raise InputError(f"{path} is a LoRA without control; leave out --axes")
    if alpha is not None:
        raise InputError(f"{path} is a LoRA without control; leave out --alpha")
    try:
        if kind is AdapterFormat.COMFYUI:
            lora, settings = from_comfyui(weights, _lora_blocks(weights), str(path))
        else:
            lora, settings = _diffusers_lora(path, weights, metadata)
    except InputError as error:
        read_lora(path)  # says what is wrong with it as any LoRA
        raise InputError(
            f"{error}; it is a LoRA of another program: stopdown generate --lora and adapter convert take it as it is"
        ) from error
    return Source(path=path, format=kind, config=AdapterConfig(control=None, lora=settings), control={}, lora=lora)


def read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and metadata of a safetensors file; raises InputError for one that cannot be read."""
    header = read_header(path)
    check_floats(str(path), {name: tensor for name, tensor in header.tensors.items() if not name.endswith(".alpha")})
    return read_tensors(path), header.metadata


def format_of(names: Mapping[str, Any], path: Path) -> AdapterFormat:
    """Return the format of a file by its tensors' names; raises InputError for none of them, or a mixture."""
    if names and all(name.startswith("diffusion_model.") for name in names):
        return AdapterFormat.PUBLISHED if EMBEDDING in names else AdapterFormat.COMFYUI
    if names and all(name.startswith(LORA_PREFIX) for name in names):
        return AdapterFormat.DIFFUSERS
    strange = next((name for name in names if not name.startswith(("diffusion_model.", LORA_PREFIX))), "no tensor")
    raise InputError(
        f"{path} is in no known format (it has {printable(strange)}); names begin with diffusion_model. (published, ComfyUI) "
        f"or {LORA_PREFIX} (diffusers); LoRAs of other programs go to stopdown generate --lora or adapter convert"
    )


def _folder(path: Path, expert: str | None) -> Source:
    saved = SavedAdapter.open(path)
    card = saved.card
    adapted = list(card.backbone.fingerprints)
    if expert is None and len(adapted) > 1:
        raise InputError(f"{path} adapts {' and '.join(adapted)}, a file holds one; name it with --expert")
    chosen = expert if expert is not None else adapted[0]
    if chosen not in adapted:
        raise InputError(f"{path} does not adapt '{chosen}'; it adapts {', '.join(adapted)}")
    weights = saved.weights(chosen)[chosen]
    return Source(
        path=path, format=AdapterFormat.DIFFUSERS, config=card.config, control=weights.control, lora=weights.lora, card=card
    )


def _published(
    path: Path, weights: dict[str, Tensor], metadata: Mapping[str, str], names: Sequence[str] | None, alpha: float | None
) -> Source:
    stored = metadata.get(AXES_KEY)
    if names is None and stored is None:
        count = weights["diffusion_model.fps_conditioning.lin1.weight"].shape[1]
        raise InputError(f"{path} does not say which axes it controls; name its {count} with --axes, such as --axes shutter")
    try:
        own = TypeAdapter(tuple[AxisControl, ...]).validate_json(stored) if stored is not None else None
        settings = json.loads(metadata[SETTINGS_KEY]) if SETTINGS_KEY in metadata else _beside(path)
    except (ValidationError, ValueError) as error:
        raise InputError(f"{path} has metadata that cannot be read ({str(error).splitlines()[0]}); name its --axes") from error
    if own is not None and names is not None and [axis.name for axis in own] != list(names):
        raise InputError(f"{path} controls {', '.join(axis.name for axis in own)}, named were {', '.join(names)}")
    axes = own if own is not None else published_axes(names or ())
    if alpha is not None:
        said = settings.get("fps_lora_alpha", alpha)
        if said != alpha or not 0 < alpha <= MAX_ALPHA:
            why = f"its settings say {printable(said)}" if said != alpha else f"it must be above 0, at most {MAX_ALPHA:g}"
            raise InputError(f"--alpha {alpha:g} is not the alpha of {path}: {why}; leave it out, or give the true one")
        settings = {**settings, "fps_lora_alpha": alpha}
    found = read_published(weights, axes, settings=settings, source=str(path))
    return Source(path=path, format=AdapterFormat.PUBLISHED, config=found.config, control=found.control, lora=found.lora)


def _beside(path: Path) -> dict[str, Any]:
    """Return the method's settings (`fps_…` of [model]) from the TOML beside a published file, where one lies."""
    found: dict[Path, dict[str, Any]] = {}
    for file in sorted(path.parent.glob("*.toml")):
        try:
            model = tomllib.loads(file.read_text(encoding="utf-8")).get("model", {})
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError, RecursionError):
            continue  # somebody else's file
        settings = {key: value for key, value in model.items() if key.startswith("fps_")} if isinstance(model, dict) else {}
        if settings:
            found[file] = settings
    if len(found) > 1 and len({json.dumps(settings, sort_keys=True) for settings in found.values()}) > 1:
        raise InputError(
            f"beside {path} lie {' and '.join(file.name for file in found)} with different fps_ settings; keep one"
        )
    return next(iter(found.values()), {})


def _diffusers_lora(
    path: Path, weights: dict[str, Tensor], metadata: Mapping[str, str]
) -> tuple[dict[str, Tensor], LoraSettings]:
    lora = peft_names(weights, str(path))
    lora = rename(str(path), {name: name for name in lora_names(_peft_blocks(lora)).values()}, lora)
    ranks = {tensor.shape[0] for name, tensor in lora.items() if name.endswith(".lora_A.weight")}
    if len(ranks) != 1:
        raise InputError(f"{path} has LoRA of ranks {sorted(ranks)}; one rank is supported")
    rank = ranks.pop()
    try:
        stored = json.loads(metadata.get("lora_adapter_metadata", "{}"))
        return lora, LoraSettings(rank=rank, alpha=stored.get(f"{LORA_PREFIX}lora_alpha", rank))
    except (ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} has metadata that cannot be read ({printable(error, 80)}); make or fetch it again") from error


def _lora_blocks(weights: Mapping[str, Tensor]) -> int:
    return sum(LORA_BLOCK.fullmatch(name) is not None for name in weights)


def _peft_blocks(lora: Mapping[str, Tensor]) -> int:
    names = inverse(lora_names(1 + max((int(n.split(".")[1]) for n in lora if n.startswith("blocks.")), default=-1)))
    return _lora_blocks({names[name]: tensor for name, tensor in lora.items() if name in names})
