"""`control.json`: what an adapter is and where it comes from; and the model card that people read."""

from __future__ import annotations

import importlib.metadata
import json
import stat
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from generator.io.checksummed_json import canonical, sha256
from scenes.errors import InputError
from trainer.backbones.hub import repository
from trainer.control.config import AdapterConfig
from trainer.control.laws import FROZEN
from trainer.methods import DEFAULT_METHOD, adapter_method
from trainer.weights.strict import printable

CARD = "control.json"
CARD_BYTES = 4 * 2**20  # the largest has some kilobytes
CHECK = "check"  # the sha256 of the rest of the card, as in the datasets' records
PACKAGES = ("stopdown", "torch", "diffusers", "peft", "transformers")
Scalar = str | int | float | bool | None
MOST_TEXT_TOKENS = 4096  # as in `trainer.config.train`


def _one_line(words: str) -> str:
    if not words or not words.isprintable():
        raise ValueError("must be one line of printable text")
    return words


Line = Annotated[str, Field(max_length=4096), AfterValidator(_one_line)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Expert = Literal["transformer", "transformer_2"]  # trainer.backbones.load.EXPERTS


class BackboneId(BaseModel):
    """The backbone an adapter was trained on: how it was named, and a fingerprint per adapted transformer."""

    model_config = FROZEN

    id: Line
    fingerprints: Annotated[dict[Expert, Digest], Field(min_length=1)]


class AdapterCard(BaseModel):
    """Everything about an adapter but its weights, whose files it names with their sha256.

    Format 1, of before there were hashes, has none: such an adapter loads unverified.
    """

    model_config = FROZEN

    format: Literal[1, 2] = 2
    method: Annotated[str, Field(max_length=64)] = DEFAULT_METHOD  # unsaid by a card that leaves it out: the bytes stay
    config: AdapterConfig
    backbone: BackboneId
    dataset_version: Line | None
    recipe: dict[str, Any] | None
    step: Annotated[int, Field(ge=0, le=10**12)]
    versions: dict[Line, Line]
    weights: dict[Line, Digest] | None = None

    @model_validator(mode="after")
    def _check(self) -> AdapterCard:
        if (self.weights is not None) != (self.format == 2):
            raise ValueError("weights: format 2 lists every weight file with its sha256, format 1 none")
        tokens = self._recipe_tokens()
        if tokens is not None and not (type(tokens) is int and 1 <= tokens <= MOST_TEXT_TOKENS):
            raise ValueError(f"recipe.backbone.text_max_length must be 1 to {MOST_TEXT_TOKENS}, received {tokens!r:.40}")
        return self

    @property
    def text_tokens(self) -> int | None:
        """The text tokens that the adapter was trained with, None where its recipe does not say."""
        tokens = self._recipe_tokens()
        return tokens if isinstance(tokens, int) else None

    def _recipe_tokens(self) -> object:
        backbone = (self.recipe or {}).get("backbone")
        return backbone.get("text_max_length") if isinstance(backbone, dict) else None


def installed_versions() -> dict[str, str]:
    """Return the versions of the packages that an adapter's numbers depend on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def read_card_file(folder: Path) -> bytes:
    """Return the bytes of a folder's `control.json`; raises InputError where the folder is no adapter."""
    path = folder / CARD
    try:
        kind = path.stat()
        if not stat.S_ISREG(kind.st_mode) or kind.st_size > CARD_BYTES:
            raise InputError(f"{path} is no card of an adapter (no file, or one beyond {CARD_BYTES:,} bytes)")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError) or not isinstance(error, OSError):
            state = f"has no {CARD}" if folder.is_dir() else "does not exist"
            raise InputError(f"adapter {folder} {state}; give an adapter's folder, or owner/name@revision") from None
        raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions") from None


def parse_card(data: bytes, path: Path) -> AdapterCard:
    """Return the card of a `control.json`'s bytes, held against its own checksum where it has one (format 2).

    Raises InputError naming the first entry that is wrong.
    """
    advice = "restore the file that the trainer wrote"
    try:
        tree = json.loads(data)
        check = tree.pop(CHECK, None) if isinstance(tree, dict) else None
        card = _model(tree, path).model_validate(tree)
        whole = card.format == 1 or (check == sha256(canonical(tree)) and card_bytes(card) == data)
    except ValidationError as error:
        first = error.errors()[0]
        where = printable(".".join(str(part) for part in first["loc"]) or "file")
        received = f", received {printable(repr(first['input']), 60)}" if isinstance(first["input"], Scalar) else ""
        words = printable(first["msg"].removeprefix("Value error, "))
        raise InputError(f"{path}: {where}: {words}{received}; {advice}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no readable JSON ({printable(error)}); {advice}") from error
    if card.format == 1 and check is not None:
        raise InputError(f"{path}: {CHECK}: a card of format 1 has none; {advice}")
    if not whole:
        raise InputError(f"{path} does not match its checksum: it was changed or is damaged; {advice}")
    return card


def _model(tree: object, path: Path) -> type[AdapterCard]:
    """Return the card of the method that a card's tree names, if it names any."""
    name = tree.get("method", DEFAULT_METHOD) if isinstance(tree, dict) else DEFAULT_METHOD
    if not isinstance(name, str):
        return AdapterCard  # says what it is
    model: type[AdapterCard] = adapter_method(printable(name, 64), str(path)).load("adapter").card
    return model


def card_bytes(card: AdapterCard) -> bytes:
    """Return a card as it is written: JSON that people read, with the checksum of its entries."""
    unsaid = ({"weights"} if card.weights is None else set()) | ({"method"} - card.model_fields_set)
    tree = json.loads(card.model_dump_json(exclude=unsaid or None))
    if card.format != 1:
        tree[CHECK] = sha256(canonical(tree))
    return json.dumps(tree, indent=2, ensure_ascii=False).encode() + b"\n"


def model_card(card: AdapterCard) -> str:
    """Return the README of an adapter, with the metadata that the hub reads."""
    return "\n".join([*_metadata(card), "", *_description(card), "", *_usage(card), ""])


def _metadata(card: AdapterCard) -> list[str]:
    lines = ["---", "library_name: diffusers", "pipeline_tag: text-to-video", "tags: [stopdown, lora, camera-control]"]
    if not Path(card.backbone.id).is_absolute():
        lines.append(f"base_model: {repository(card.backbone.id)}")
    return [*lines, "---"]


def _description(card: AdapterCard) -> list[str]:
    control, lora = card.config.control, card.config.lora
    lines = [f"# Stopdown adapter for {Path(repository(card.backbone.id)).name}", ""]
    if control is not None:
        lines += ["| axis | c = −1 | c = 0 | c = +1 |", "|---|---|---|---|"]
        lines += [f"| {axis.name} | {' | '.join(axis.format(c) for c in (-1.0, 0.0, 1.0))} |" for axis in control.axes]
        blocks = ", ".join(map(str, control.blocks))
        gate = f"gate {control.gate} ({control.gate_value:g})"
        lines += ["", f"Control attention in blocks {blocks}, rank {control.rank}, alpha {control.alpha:g}, {gate}."]
    if lora is not None:
        lines.append(f"LoRA on every projection of every block, rank {lora.rank}, alpha {lora.alpha:g}.")
    lines += ["", f"- Trained for {card.step} steps on dataset version {card.dataset_version or '(none recorded)'}."]
    lines += [f"- Backbone fingerprint of {name}: {digest}." for name, digest in card.backbone.fingerprints.items()]
    lines.append(f"- Made with {', '.join(f'{name} {version}' for name, version in card.versions.items())}.")
    return lines


def _usage(card: AdapterCard) -> list[str]:
    example = ""
    if card.config.control is not None:
        first = card.config.control.axes[0]
        written = first.format(0.5)
        example = f', {first.name}="{written}"' if not written.startswith("c = ") else ", control=0.5"
    return [
        "```python",
        "from trainer.pipeline import ControlledWan",
        "",
        f'pipe = ControlledWan.from_pretrained("{card.backbone.id}", "path/to/this/folder")',
        f'video = pipe("a ball rolls past"{example}).frames[0]',
        "```",
        "",
        "| file | for whom |",
        "|---|---|",
        "| `control.json`, `control_adapter.safetensors` | Stopdown: the control, which no other program reads |",
        "| `pytorch_lora_weights.safetensors` | plain diffusers (`pipe.load_lora_weights`): the LoRA alone, without control |",
        "",
        "ComfyUI loads neither: of `pytorch_lora_weights.safetensors` it applies nothing and says so in its log only. "
        "`stopdown adapter convert THIS_FOLDER lora.safetensors --to comfyui` writes what it reads, the LoRA alone; "
        "`--to published` writes the file of the method's own code.",
    ]
