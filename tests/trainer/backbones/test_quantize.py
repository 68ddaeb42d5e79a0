"""Packed backbones: what is packed, how far results move, that adapters train on top, and what is refused."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path

import pytest
import torch
from trainer_support import LAYERS, predict, scramble, tiny_config, tiny_inputs

from scenes.errors import InputError, StopdownError
from trainer.adapters.folder import attach_saved, save_adapter
from trainer.adapters.saved import SavedAdapter
from trainer.backbones.load import fingerprint, load_backbone
from trainer.backbones.quantize import (
    BYTES_PER_WEIGHT,
    PACKAGES,
    Quantization,
    check_quantization,
    load_quantized,
    loading_options,
    quantize_in_place,
    weight_bytes,
)
from trainer.control import Mode, WanAdapter, attach

CPU = torch.device("cpu")
CONTROLS = [[0.4, -0.9], [-1.0, 0.3]]
PACKED = [
    pytest.param(kind, marks=pytest.mark.skipif(importlib.util.find_spec(PACKAGES[kind]) is None, reason="not installed"))
    for kind in Quantization
    if kind != Quantization.NONE
]
pytestmark = pytest.mark.filterwarnings("ignore:.*get_apply_tensor_subclass", "ignore:.*Enum subclass")
# How far a prediction moves, relative: 3, 7 and 4 bits of mantissa, step or code book, averaged over sums.
TOLERANCE = {Quantization.FP8: 0.05, Quantization.INT8: 0.02, Quantization.NF4: 0.12}


def is_packed(layer: torch.nn.Linear) -> bool:
    """Return whether a linear layer's weight is packed."""
    return type(layer.weight).__name__ in ("Float8Tensor", "Int8Tensor", "Params4bit")


def backbone(width_heads: int = 4) -> torch.nn.Module:
    """Return a bfloat16 transformer with rows wide enough for nf4's blocks of 64."""
    from diffusers import WanTransformer3DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = WanTransformer3DModel(
            num_attention_heads=width_heads,
            attention_head_dim=32,
            in_channels=4,
            out_channels=4,
            text_dim=24,
            freq_dim=32,
            ffn_dim=256,
            num_layers=LAYERS,
        )
    return transformer.to(torch.bfloat16).eval().requires_grad_(False)


def inputs() -> dict[str, torch.Tensor]:
    """Return inputs of two videos."""
    return tiny_inputs(dtype=torch.bfloat16)


def unpacked(packed: torch.nn.Module) -> torch.nn.Module:
    """Return an ordinary transformer with the weights that the packed ones stand for."""
    plain = backbone()
    for layer, own in zip(packed.modules(), plain.modules(), strict=True):
        if isinstance(layer, torch.nn.Linear):
            weight = layer.weight
            if type(weight).__name__ == "Params4bit":
                import bitsandbytes.functional as bnb

                weight = bnb.dequantize_4bit(weight.data, weight.quant_state)
            elif is_packed(layer):
                weight = weight.dequantize()
            own.weight.copy_(weight.to(own.weight.dtype))
    return plain


@pytest.mark.parametrize("kind", PACKED)
def test_the_blocks_are_packed_and_nothing_else(kind: Quantization) -> None:
    transformer = backbone()
    before, identity = weight_bytes(transformer), fingerprint(transformer)
    with torch.no_grad():
        exact = predict(transformer, inputs()).float()
    quantize_in_place(transformer, kind)
    layers = {name: layer for name, layer in transformer.named_modules() if isinstance(layer, torch.nn.Linear)}
    assert {name for name, layer in layers.items() if is_packed(layer)} == {n for n in layers if n.startswith("blocks.")}
    assert fingerprint(transformer) == identity
    weights = sum(layer.in_features * layer.out_features for name, layer in layers.items() if name.startswith("blocks."))
    saved = 2 - (before - weight_bytes(transformer)) / weights
    assert saved == pytest.approx(BYTES_PER_WEIGHT[kind], abs=4 / 128 + 1e-3)  # a float32 scale for a row of 128 or 256
    with torch.no_grad():
        moved = predict(transformer, inputs()).float()
    assert 0 < (moved - exact).norm() / exact.norm() < TOLERANCE[kind]


@pytest.mark.parametrize("kind", PACKED)
def test_adapters_train_on_a_packed_backbone_as_on_its_unpacked_weights(kind: Quantization) -> None:
    packed = backbone()
    quantize_in_place(packed, kind)
    gradients = []
    for transformer in (unpacked(packed), packed):
        adapter = scramble(attach(transformer, tiny_config(), dtype=torch.float32))
        adapter.set_mode("joint")
        assert {parameter.dtype for parameter in adapter.parameters().values()} == {torch.float32}
        own = {id(parameter) for parameter in adapter.parameters().values()}
        assert {id(p) for p in transformer.parameters() if p.requires_grad} == own
        gradients.append(train_step(adapter))
    for name, expected in gradients[0].items():
        received = gradients[1][name]
        assert expected.norm() > 0 and (received - expected).norm() < 0.06 * expected.norm(), name


def train_step(adapter: WanAdapter) -> dict[str, torch.Tensor]:
    """Return the gradients of a step with autocast and gradient checkpointing; the packed weights stay as they are."""
    adapter.transformer.train()
    adapter.transformer.enable_gradient_checkpointing()
    with torch.autocast("cpu", torch.bfloat16):
        predict(adapter.transformer, inputs(), CONTROLS).float().square().mean().backward()
    adapter.transformer.eval()
    return {name: parameter.grad for name, parameter in adapter.parameters().items()}


@pytest.mark.parametrize("kind", PACKED)
def test_zero_strength_is_the_packed_backbone_bit_for_bit(kind: Quantization) -> None:
    transformer = backbone()
    quantize_in_place(transformer, kind)
    with torch.no_grad():
        bare = predict(transformer, inputs())
        adapter = scramble(attach(transformer, tiny_config(), dtype=torch.float32))
        outputs = {}
        for mode in Mode:
            adapter.set_mode(mode, strength=0.0)
            assert torch.equal(predict(transformer, inputs(), CONTROLS), bare)
            adapter.set_mode(mode)
            outputs[mode] = predict(transformer, inputs(), CONTROLS)
    assert torch.equal(outputs[Mode.BACKBONE_ONLY], bare)
    assert not any(torch.equal(outputs[mode], bare) for mode in Mode if mode != Mode.BACKBONE_ONLY)


@pytest.mark.parametrize("kind", PACKED)
def test_a_pipeline_loads_packed_and_takes_a_saved_adapter(kind: Quantization, tmp_path: Path) -> None:
    exact = load_backbone("tiny-random", cache=tmp_path, dtype=torch.bfloat16)
    source = scramble(attach(exact.transformer, tiny_config()), scale=0.1)
    save_adapter(tmp_path / "a", {"transformer": source}, backbone_id="tiny-random", step=1)
    pipe = load_quantized("tiny-random", kind, cache=tmp_path)
    layers = [layer for layer in pipe.transformer.blocks.modules() if isinstance(layer, torch.nn.Linear)]
    assert layers and all(is_packed(layer) for layer in layers)
    assert not is_packed(pipe.transformer.proj_out) and pipe.vae.dtype == torch.bfloat16
    saved = SavedAdapter.open(tmp_path / "a")
    card, adapters = saved.card, attach_saved({"transformer": pipe.transformer}, saved)
    assert card.backbone.fingerprints == {"transformer": fingerprint(pipe.transformer)}
    again = adapters["transformer"].parameters()
    assert all(torch.equal(again[name], parameter) for name, parameter in source.parameters().items())
    pipe.set_progress_bar_config(disable=True)
    adapters["transformer"].set_mode("backbone_only")
    frames = pipe("a red ball", height=16, width=16, num_frames=1, num_inference_steps=1, max_sequence_length=8).frames
    assert frames.shape == (1, 1, 16, 16, 3) and frames.std() > 0


def test_no_quantization_changes_nothing(tmp_path: Path) -> None:
    transformer = backbone()
    before = copy.deepcopy(transformer.state_dict())
    quantize_in_place(transformer, Quantization.NONE)
    assert all(torch.equal(before[name], tensor) for name, tensor in transformer.state_dict().items())
    assert loading_options(Quantization.NONE, CPU, torch.bfloat16) == {"dtype": torch.bfloat16}
    pipe = load_quantized("tiny-random", cache=tmp_path, dtype=torch.float32)
    assert pipe.transformer.dtype == torch.float32


def test_on_cuda_diffusers_packs_both_experts_while_loading() -> None:
    for kind in (Quantization.FP8, Quantization.INT8, Quantization.NF4):
        config = loading_options(kind, torch.device("cuda"), torch.bfloat16)["quantization_config"]
        assert set(config.quant_mapping) == {"transformer", "transformer_2"}
    nf4 = loading_options(Quantization.NF4, torch.device("cuda"), torch.bfloat16)["quantization_config"].quant_mapping[
        "transformer"
    ]
    assert nf4.load_in_4bit and nf4.bnb_4bit_quant_type == "nf4" and nf4.bnb_4bit_use_double_quant
    assert nf4.llm_int8_skip_modules == ["condition_embedder", "proj_out"]


def test_what_cannot_be_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"'fp9' is unknown \(did you mean 'fp8'\?\); allowed: none, fp8, int8, nf4"):
        check_quantization("fp9", CPU)
    with pytest.raises(InputError, match="'nf4' does not run on device 'mps'; use cuda or cpu"):
        check_quantization("nf4", torch.device("mps"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "NVIDIA A100")
    with pytest.raises(InputError, match=r"cannot read fp8 weights on NVIDIA A100 \(compute capability 8\.0, 8\.9 is needed\)"):
        check_quantization("fp8", torch.device("cuda"), compiled=True)
    assert check_quantization("fp8", torch.device("cuda")) == Quantization.FP8
    assert check_quantization("none", torch.device("mps")) == Quantization.NONE
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else real(name))
    with pytest.raises(InputError, match="needs bitsandbytes, which is not installed: pip install bitsandbytes"):
        check_quantization("nf4", CPU)


def test_a_transformer_with_an_adapter_is_not_packed_any_more() -> None:
    transformer = backbone()
    attach(transformer, tiny_config())
    with pytest.raises(StopdownError, match="carries a LoRA already; pack the backbone first"):
        quantize_in_place(transformer, Quantization.FP8)
