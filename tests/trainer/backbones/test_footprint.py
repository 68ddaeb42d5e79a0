"""The memory estimate, held against what models weigh and what autograd keeps, and what it promises for true sizes."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from trainer_support import scramble

from scenes.errors import InputError
from trainer.backbones.load import load_backbone
from trainer.backbones.quantize import PACKAGES, Quantization, quantize_in_place, weight_bytes
from trainer.backbones.wan_configs import WAN_CONFIGS, WanConfig, random_transformer
from trainer.backbones.weightless import weightless_pipeline
from trainer.control import AdapterConfig, ControlConfig, LoraSettings, WanAdapter, attach, axis_control, resolve_blocks
from trainer.estimates.flops import video_tokens
from trainer.estimates.footprint import FRAGMENTATION, MemoryEstimate, estimate_memory
from trainer.estimates.live_bytes import LiveBytes, encoding_peak

pytestmark = pytest.mark.filterwarnings("ignore:.*get_apply_tensor_subclass", "ignore:.*Enum subclass")
SMALL = WanConfig(hub_id="none", num_attention_heads=4, attention_head_dim=64, ffn_dim=768, num_layers=6)
GB = 1e9


def reference(num_layers: int, rank: int = 32) -> AdapterConfig:
    """Return the reference adapter of DESIGN section 4."""
    control = ControlConfig(axes=(axis_control("shutter"),), blocks=resolve_blocks("deepest_third", num_layers))
    return AdapterConfig(control=control, lora=LoraSettings(rank=rank))


def small(kind: Quantization = Quantization.NONE) -> torch.nn.Module:
    """Return a backbone of 13 million weights, as from_pretrained leaves it."""
    transformer = random_transformer(SMALL, device="cpu", dtype=torch.bfloat16)
    for name, parameter in transformer.named_parameters():
        if any(part in transformer._keep_in_fp32_modules for part in name.split(".")):
            parameter.data = parameter.data.float()
    quantize_in_place(transformer, kind)
    return transformer


@pytest.mark.parametrize("kind", Quantization)
def test_the_backbone_weighs_what_is_estimated(kind: Quantization) -> None:
    if kind != Quantization.NONE and importlib.util.find_spec(PACKAGES[kind]) is None:
        pytest.skip(f"{PACKAGES[kind]} is not installed")
    transformer = small(kind)
    estimate = estimate_memory(transformer.config, reference(6), tokens=64, quantization=kind)
    assert estimate.backbone / FRAGMENTATION == pytest.approx(weight_bytes(transformer), rel=1e-6 if kind == "none" else 0.02)


def test_adapter_gradients_and_optimizer_are_counted() -> None:
    transformer = small()
    adapter = attach(transformer, reference(6), dtype=torch.float32)
    count = sum(parameter.numel() for parameter in adapter.parameters().values())
    optimizer = torch.optim.AdamW(adapter.parameters().values())
    for parameter in adapter.parameters().values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moments = [value for state in optimizer.state.values() for value in state.values() if value.ndim]
    held = 2 * 4 * count + sum(value.numel() * value.element_size() for value in moments)
    estimate = estimate_memory(transformer.config, reference(6), tokens=64)
    assert estimate.adapter / FRAGMENTATION == pytest.approx(held, rel=0.01)


def kept_bytes(adapter: WanAdapter, side: int, text_tokens: int, batch: int) -> int:
    """Return the bytes that autograd keeps after a forward pass, the model's own tensors left out."""
    transformer = adapter.transformer
    storages: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    own = {parameter.untyped_storage().data_ptr() for parameter in transformer.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        output = transformer(
            hidden_states=torch.randn(batch, 16, 1, 2 * side, 2 * side, dtype=torch.bfloat16),
            encoder_hidden_states=torch.randn(batch, text_tokens, 4096, dtype=torch.bfloat16),
            timestep=torch.full((batch,), 300.0),
            attention_kwargs={"controls": torch.full((batch, 1), 0.3)},
            return_dict=False,
        )
    kept = sum(size for pointer, size in storages.items() if pointer not in own)
    del output
    return kept


@pytest.mark.parametrize(("side", "text_tokens", "batch", "rank"), [(16, 64, 1, 32), (24, 16, 1, 4), (8, 256, 2, 16)])
def test_activations_are_what_autograd_keeps(side: int, text_tokens: int, batch: int, rank: int) -> None:
    transformer = small().train()
    adapter = scramble(attach(transformer, reference(6, rank), dtype=torch.float32), scale=0.01)
    adapter.set_mode("joint")
    sizes = {"tokens": side * side, "batch": batch, "text_tokens": text_tokens, "checkpointing": False}
    estimate = estimate_memory(transformer.config, reference(6, rank), **sizes)
    assert estimate.activations / FRAGMENTATION == pytest.approx(kept_bytes(adapter, side, text_tokens, batch), rel=0.08)


@pytest.mark.parametrize(
    ("name", "quantization", "card_gb"),
    [
        ("wan2.1-t2v-14b", "none", 80),
        ("wan2.1-t2v-14b", "fp8", 80),
        ("wan2.1-t2v-14b", "nf4", 24),
        ("wan2.1-t2v-1.3b", "none", 12),
        ("wan2.2-ti2v-5b", "fp8", 24),
    ],
)
def test_true_sizes_fit_the_cards_they_are_meant_for(name: str, quantization: str, card_gb: int) -> None:
    """At 512 x 512, 9 frames, batch 1, with gradient checkpointing: the issue's bounds and two more."""
    config = WAN_CONFIGS[name]
    tokens = video_tokens(512, 512, 9, spatial=16 if config.expand_timesteps else 8)
    estimate = estimate_memory(
        config.transformer_arguments(), reference(config.num_layers), tokens=tokens, quantization=quantization
    )
    weights = sum(parameter.numel() for parameter in random_transformer(config).parameters())
    assert {"none": 2.0, "fp8": 1.0, "nf4": 0.5}[quantization] * weights < estimate.backbone < estimate.total
    assert estimate.total < card_gb * GB


def test_what_saves_memory_is_seen_to() -> None:
    config, adapter = WAN_CONFIGS["wan2.1-t2v-1.3b"].transformer_arguments(), reference(30)

    def total(**changes: object) -> int:
        return estimate_memory(config, adapter, **({"tokens": 3072} | changes)).total

    plain, kept = total(), total(checkpointing=False)
    assert total(quantization="nf4") < total(quantization="fp8") < plain < kept
    assert kept > 12 * GB > plain  # without checkpointing 1.3B is out of reach of a small card
    assert plain < total(batch=2) and plain < total(averaged=True) < total(experts=2)
    assert total(optimizer="adamw_8bit") < plain
    # Unpacked fp8 weights stay until the backward pass when nothing is computed again; nf4's do not.
    assert total(quantization="nf4", checkpointing=False) < total(quantization="fp8", checkpointing=False)


def test_the_most_that_is_held_at_once_is_counted_without_memory() -> None:
    """Results count while anything holds them, views once, what was there before never."""
    with torch.device("meta"):
        given = torch.empty(10, 100)
    with LiveBytes() as live:
        first = given + 1  # 4,000 bytes
        view = first.view(100, 10)[:50]
        second = torch.cat([first, first])  # 8,000
        del first
        third = second.sum()  # 4; the view still holds the first
        del second, view
        fourth = given.double()  # 8,000
        del third, fourth
    assert live.peak == 4000 + 8000 + 4


def test_encoding_takes_more_for_larger_pictures_and_no_more_for_longer_clips() -> None:
    vae = weightless_pipeline("tiny-random").vae
    still, short, long = (encoding_peak(vae, 64, 64, frames) for frames in (1, 9, 33))
    frame = 3 * 64 * 64 * 4
    assert still < short and long - short == 24 * frame, "chunks of four frames, and the frames themselves"
    assert encoding_peak(vae, 128, 64, 9) == pytest.approx(2 * short, rel=0.02)


@pytest.mark.parametrize("name", ["tiny", "tiny-random"])
def test_a_pipeline_without_weights_is_the_one_with_them(name: str) -> None:
    """By every configuration and by the shape of every weight."""
    bare, loaded = weightless_pipeline(name), load_backbone(name)
    for part in ("transformer", "vae", "text_encoder"):
        shapes = [{n: tuple(p.shape) for n, p in getattr(pipe, part).named_parameters()} for pipe in (bare, loaded)]
        assert shapes[0] == shapes[1]
        assert all(parameter.is_meta for parameter in getattr(bare, part).parameters())
    assert (bare.vae_scale_factor_spatial, bare.vae_scale_factor_temporal) == (
        loaded.vae_scale_factor_spatial,
        loaded.vae_scale_factor_temporal,
    )
    assert dict(bare.scheduler.config) == dict(loaded.scheduler.config)
    for key in ("boundary_ratio", "expand_timesteps"):
        assert bare.config[key] == loaded.config[key]


def test_an_estimate_says_its_parts() -> None:
    estimate = MemoryEstimate(backbone=28_600_000_000, adapter=2_700_000_000, activations=2_300_000_000, reserved=1_500_000_000)
    assert str(estimate) == "35.1 GB (backbone 28.6, adapter and optimizer 2.7, activations 2.3, reserve 1.5)"
    with pytest.raises(InputError, match="optimizer 'sgd' is not known; known are adamw, adamw_fused"):
        estimate_memory(SMALL.transformer_arguments(), reference(6), tokens=64, optimizer="sgd")
