"""The published method's own outputs, recorded from the original modules, in every inference mode.

The official recording of one control is in `data/`, byte for byte as it was handed over; so is a small one of two controls
(see `record_small.py`). The official one of two controls is another 4 MB and is read from `STOPDOWN_REFERENCE`, or from
`../shared/reference` beside the repository.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors import safe_open
from torch import Tensor

from trainer.control import Mode, attach
from trainer.formats.published import PublishedAdapter, published_axes, read_published, write_published
from trainer.weights.key_names import backbone_names
from trainer.weights.strict import rename

ROOT = Path(__file__).parents[3]
REFERENCE = Path(os.environ.get("STOPDOWN_REFERENCE", ROOT / "../shared/reference"))
DATA = Path(__file__).parent.parent / "data"
SMALL = "small_two_controls"
CASES = {SMALL: ("shutter", "aperture"), "official_one_control": ("shutter",), "official_two_controls": ("shutter", "aperture")}


def parts_of(name: str) -> tuple[dict[str, dict[str, Tensor]], dict]:
    """Return the tensors of a recording by prefix, and its configuration."""
    shipped = DATA / f"{name}.safetensors"
    path = shipped if shipped.exists() else REFERENCE / shipped.name
    if not path.exists():
        pytest.skip(f"no recordings in {REFERENCE}; set STOPDOWN_REFERENCE to their folder")
    parts: dict[str, dict[str, Tensor]] = {}
    with safe_open(path, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118 (not a dict)
            prefix, rest = key.split(".", 1)
            parts.setdefault(prefix, {})[rest] = file.get_tensor(key)
        return parts, json.loads(file.metadata()["config"])


def backbone_of(weights: dict[str, Tensor], config: dict) -> WanTransformer3DModel:
    """Return the recording's backbone as diffusers' transformer."""
    transformer = WanTransformer3DModel(
        num_attention_heads=config["num_heads"],
        attention_head_dim=config["dim"] // config["num_heads"],
        in_channels=config["in_dim"],
        out_channels=config["out_dim"],
        text_dim=config["text_dim"],
        freq_dim=config["freq_dim"],
        ffn_dim=config["ffn_dim"],
        num_layers=config["num_layers"],
        cross_attn_norm=config["cross_attn_norm"],
    )
    transformer.load_state_dict(rename("backbone", backbone_names(config["num_layers"]), weights), strict=True)
    return transformer.eval()


def published_of(parts: dict[str, dict[str, Tensor]], config: dict, name: str) -> PublishedAdapter:
    """Return the recording's adapter."""
    return read_published(parts["adapter"], published_axes(CASES[name]), settings=config, source=name)


def test_the_official_recording_is_the_one_handed_over() -> None:
    """Its bytes, so that nobody records it again with this project's own modules."""
    digest = hashlib.sha256((DATA / "official_one_control.safetensors").read_bytes()).hexdigest()
    assert digest == "da8a05201654fda97930538db8ab313ae6b1ffdbea094c07199c66da285595d4"


@pytest.mark.parametrize("name", CASES)
def test_every_mode_matches_the_original_modules(name: str) -> None:
    parts, config = parts_of(name)
    published = published_of(parts, config, name)
    adapter = attach(backbone_of(parts["backbone"], config), published.config)
    adapter.load(published.control, published.lora, name)
    text_BLX = parts["in"]["text"]
    padded_BLX = torch.nn.functional.pad(text_BLX, (0, 0, 0, config["text_len"] - text_BLX.shape[1]))
    compared = 0
    for mode in Mode:
        adapter.set_mode(mode)
        for index, condition in enumerate(parts["in"]["conditions"]):
            with torch.no_grad():
                output = adapter.transformer(
                    hidden_states=parts["in"]["latents"],
                    timestep=parts["in"]["timestep"],
                    encoder_hidden_states=padded_BLX,
                    attention_kwargs={"controls": condition.reshape(len(condition), -1)},
                    return_dict=False,
                )[0]
            torch.testing.assert_close(output, parts["out"][f"{mode}.{index}"], atol=2e-4, rtol=0)
            compared += 1
    assert compared == len(parts["out"]) == 10


@pytest.mark.parametrize("name", CASES)
def test_published_keys_go_round_exactly(name: str) -> None:
    parts, config = parts_of(name)
    published = published_of(parts, config, name)
    again = write_published(published.config, published.control, published.lora)
    assert again.keys() == parts["adapter"].keys()
    assert all(torch.equal(again[key], tensor) for key, tensor in parts["adapter"].items())
    assert (
        published.config.control.alpha == config["fps_lora_alpha"]
        and published.config.control.rank == config["fps_adapter_rank"]
    )
    assert published.config.control.blocks == ((2, 3) if name == SMALL else (5, 6))
    assert published.config.lora.rank == published.config.lora.alpha == (3 if name == SMALL else 5)
