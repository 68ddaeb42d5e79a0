"""Holds a backbone's folder against what a WanPipeline is, before anything is loaded: components, files and their headers.

Weights come from safetensors only: a pickle runs whatever code its author put in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scenes.errors import InputError
from trainer.weights.key_names import backbone_names
from trainer.weights.strict import printable

if TYPE_CHECKING:
    from trainer.weights.weights_file import TensorHeader

INDEX = "model_index.json"
CONFIG_BYTES = 64 * 2**20  # of a JSON file; the largest is a tokenizer's
LIBRARIES = ("diffusers", "transformers")
WEIGHTED = ("transformer", "transformer_2", "vae", "text_encoder")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
MAX_LAYERS = 1024
DIFFUSERS_IDS = {
    1536: "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    3072: "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
    5120: "Wan-AI/Wan2.1-T2V-14B-Diffusers",
}
ORIGINAL_FILES = ("Wan2.1_VAE.pth", "Wan2.2_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth")
SINGLE_FILE_NAMES = ("patch_embedding.weight", "model.diffusion_model.patch_embedding.weight")
RESTORE = "save or download the pipeline again"


def read_json(path: Path, source: str) -> dict[str, Any]:
    """Return a JSON object of a backbone; raises InputError for what is absent, too large, or no object."""
    try:
        if not path.is_file():
            raise InputError(f"{source} has no {path.name}; {RESTORE}")
        if path.stat().st_size > CONFIG_BYTES:
            raise InputError(f"{source}: {path.name} has more than {CONFIG_BYTES:,} bytes; {RESTORE}")
        tree = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{source}: {path.name} cannot be read ({printable(error)}); {RESTORE}") from error
    if not isinstance(tree, dict):
        raise InputError(f"{source}: {path.name} cannot be read (it is no JSON object); {RESTORE}")
    return tree


def check_index(index: Path, name: str) -> dict[str, Any]:
    """Return a pipeline's index; raises InputError unless it is a WanPipeline of diffusers' and transformers' classes."""
    source = f"backbone {name}"
    tree = read_json(index, source)
    kind = tree.get("_class_name")
    if kind != "WanPipeline":
        raise InputError(f"{source} is a {printable(kind)}; control adapters need a text-to-video WanPipeline")
    for part, made_by in tree.items():
        known = not isinstance(made_by, list) or (len(made_by) == 2 and made_by[0] in (*LIBRARIES, None))
        if not known:
            raise InputError(
                f"{source}: {printable(part)} comes from {printable(made_by)}; only diffusers and transformers are loaded"
            )
    return tree


def other_layout(path: Path, name: str) -> str:
    """Return what to do with a backbone that is a single file, or in the layout of the original Wan code; "" for neither."""
    if path.is_file():
        like = DIFFUSERS_IDS.get(_file_width(path), DIFFUSERS_IDS[1536])
        return (
            f"backbone {name} is a single file, and a WanPipeline's folder is needed; convert it once: python -c "
            f"'from diffusers "
            f'import WanPipeline, WanTransformer3DModel as T; WanPipeline.from_pretrained("{like}", transformer='
            f'T.from_single_file("{name}")).save_pretrained("FOLDER")\', and give FOLDER'
        )
    if (path / "config.json").is_file() and not (path / INDEX).exists():
        config = read_json(path / "config.json", f"backbone {name}")
        if config.get("_class_name") == "WanModel" or any((path / file).exists() for file in ORIGINAL_FILES):
            width = config.get("dim")
            like = DIFFUSERS_IDS.get(width if isinstance(width, int) else 0, DIFFUSERS_IDS[1536])
            return (
                f"backbone {name} has the layout of the original Wan code; give {like}, the same model for diffusers, or "
                "convert yours with diffusers' scripts/convert_wan_to_diffusers.py"
            )
    return ""


def _file_width(path: Path) -> int:
    """Return the model width of a transformer in one file, 0 where it does not say."""
    from trainer.weights.weights_file import read_header

    if path.suffix != ".safetensors":
        return 0
    tensors = read_header(path, "give a WanPipeline folder").tensors
    found = [tensors[name] for name in SINGLE_FILE_NAMES if name in tensors]
    return found[0].shape[0] if found and found[0].shape else 0


def check_files(folder: Path, name: str) -> None:
    """Raise InputError for a pipeline's folder whose components are pickled, cut short, incomplete or of absurd size."""
    index = check_index(folder / INDEX, name)
    for part in WEIGHTED:
        made_by = index.get(part)
        if isinstance(made_by, list) and made_by[0] is not None:
            _check_component(folder / part, f"'{part}' of backbone {name}")


def check_sizes(folder: Path, name: str) -> None:
    """Raise InputError for a pipeline's folder with a component of absurd size by its configuration, weights or not."""
    index = check_index(folder / INDEX, name)
    for part in WEIGHTED:
        made_by = index.get(part)
        if isinstance(made_by, list) and made_by[0] is not None:
            source = f"'{part}' of backbone {name}"
            _check_depth(read_json(folder / part / "config.json", source), source)


def _check_depth(config: Mapping[str, Any], source: str) -> None:
    """Raise InputError for a number of layers that no model has: each costs memory even without weights."""
    for key, value in config.items():
        if key.startswith("num_") and key.endswith(("layers", "blocks")) and isinstance(value, int) and value > MAX_LAYERS:
            raise InputError(f"{source}: {printable(key)} is {printable(value)}; at most {MAX_LAYERS} are taken: {RESTORE}")


def _check_component(folder: Path, source: str) -> None:
    from trainer.weights.weights_file import read_header  # needs torch, the rest of this module does not

    config = read_json(folder / "config.json", source)
    _check_depth(config, source)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickled = [path.name for pattern in PICKLES for path in sorted(folder.glob(pattern))]
        if pickled:
            raise InputError(
                f"{source} has its weights in {printable(pickled[0])}, a pickle, which can run any code; give a backbone saved "
                "as safetensors (save_pretrained of a trusted copy writes them)"
            )
        raise InputError(f"{source} has no weights (*.safetensors); {RESTORE}")
    tensors: dict[str, TensorHeader] = {}
    for path in files:
        tensors |= read_header(path, RESTORE).tensors
    if "num_attention_heads" in config and folder.name.startswith("transformer"):
        _check_transformer(config, tensors, source)


def _check_transformer(config: Mapping[str, Any], tensors: Mapping[str, TensorHeader], source: str) -> None:
    layers = config.get("num_layers")
    if type(layers) is not int or not 1 <= layers <= MAX_LAYERS:
        raise InputError(f"{source}: num_layers is {printable(layers)}; allowed are 1 to {MAX_LAYERS}: {RESTORE}")
    missing = [name for name in backbone_names(layers).values() if name not in tensors]
    if missing:
        raise InputError(f"{source} lacks {len(missing)} tensors, such as {missing[0]}; {RESTORE}")
    width = tensors["patch_embedding.weight"].shape[:1]
    own = (config["num_attention_heads"], config.get("attention_head_dim"))
    if not all(type(number) is int for number in own) or width != (own[0] * own[1],):
        raise InputError(
            f"{source} has {printable(own[0])} heads of {printable(own[1])} in its config and weights of width "
            f"{width[0] if width else 0}; {RESTORE}"
        )
