"""Writes `data/small_two_controls.safetensors`: the layout of the official recordings at a tenth of their size.

The official recording of two controls (4 MB) stays outside the repository. This one was written by this project's own modules
at a state where they matched the official ones within 5e-5, so that a fresh clone still notices any change of the arithmetic.
Run it again (`python tests/trainer/record_small.py`) only where `test_parity.py` passes on the official ones.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import save_file
from trainer_support import scramble

from trainer.control import AdapterConfig, ControlConfig, LoraSettings, Mode, attach
from trainer.formats.published import original_settings, published_axes, write_published
from trainer.weights.key_names import backbone_names, inverse
from trainer.weights.strict import rename

PATH = Path(__file__).parent / "data" / "small_two_controls.safetensors"
LAYERS, HEADS, HEAD_DIM, TEXT_DIM, TEXT_LENGTH = 4, 2, 16, 12, 9
CONTROL = ControlConfig(
    axes=published_axes(["shutter", "aperture"]), blocks=(2, 3), rank=3, alpha=5.0, tokens=4, embed_dim=20, hidden_dim=8
)


def main() -> None:
    """Draw a model and an adapter, run every mode, write everything."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    transformer = WanTransformer3DModel(
        num_attention_heads=HEADS, attention_head_dim=HEAD_DIM, in_channels=4, out_channels=4,
        text_dim=TEXT_DIM, freq_dim=32, ffn_dim=40, num_layers=LAYERS,
    ).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    backbone = {name: tensor.clone() for name, tensor in transformer.state_dict().items()}
    config = AdapterConfig(control=CONTROL, lora=LoraSettings(rank=3, alpha=3.0))
    adapter = scramble(attach(transformer, config), scale=0.15)
    inputs = {
        "conditions": torch.randn(2, 3, 2),
        "latents": torch.randn(3, 4, 2, 4, 6),
        "text": torch.randn(3, 5, TEXT_DIM),
        "timestep": torch.tensor([13.0, 480.0, 951.0]),
    }
    text = torch.nn.functional.pad(inputs["text"], (0, 0, 0, TEXT_LENGTH - 5))
    tensors = {f"in.{name}": tensor for name, tensor in inputs.items()}
    for mode in Mode:
        adapter.set_mode(mode)
        for index, condition in enumerate(inputs["conditions"]):
            with torch.no_grad():
                tensors[f"out.{mode}.{index}"] = transformer(
                    inputs["latents"], inputs["timestep"], text, attention_kwargs={"controls": condition}, return_dict=False
                )[0]
    published = write_published(config, adapter.control_parameters(), adapter.lora_parameters())
    tensors |= {f"adapter.{name}": tensor.detach() for name, tensor in published.items()}
    tensors |= {
        f"backbone.{name}": tensor for name, tensor in rename("backbone", inverse(backbone_names(LAYERS)), backbone).items()
    }
    settings = original_settings(CONTROL) | {
        "text_len": TEXT_LENGTH, "in_dim": 4, "out_dim": 4, "dim": HEADS * HEAD_DIM, "ffn_dim": 40, "freq_dim": 32,
        "text_dim": TEXT_DIM, "num_heads": HEADS, "num_layers": LAYERS, "cross_attn_norm": True,
    }  # fmt: skip
    PATH.parent.mkdir(exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, PATH, metadata={"config": json.dumps(settings)})


if __name__ == "__main__":
    main()
