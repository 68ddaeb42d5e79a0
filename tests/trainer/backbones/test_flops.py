"""The formula of a step's operations, held against torch's own counter of what really runs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from trainer_support import LAYERS, predict, scramble, tiny_config, tiny_inputs, tiny_transformer

from trainer.backbones.wan_configs import WAN_CONFIGS, random_transformer
from trainer.control import AdapterConfig, ControlConfig, LoraSettings, attach, axis_control, resolve_blocks
from trainer.estimates.flops import Shape, StepFlops, step_flops, video_tokens

ARMS = {"joint": {}, "lora_only": {"control": False}, "control_only": {"lora": False}}


@settings(max_examples=12, deadline=None)
@given(
    arm=st.sampled_from(sorted(ARMS)),
    checkpointing=st.booleans(),
    batch=st.integers(1, 3),
    blocks=st.sets(st.integers(0, LAYERS - 1), min_size=1).map(lambda chosen: tuple(sorted(chosen))),
)
def test_the_formula_counts_what_runs(arm: str, checkpointing: bool, batch: int, blocks: tuple[int, ...]) -> None:
    """With attention as plain products: the fused kernels compute scores again, which the formula leaves out."""
    transformer = tiny_transformer().train()
    config = tiny_config(blocks=blocks, **ARMS[arm])
    adapter = scramble(attach(transformer, config))
    adapter.set_mode(arm)
    if checkpointing:
        transformer.enable_gradient_checkpointing()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        output = predict(transformer, tiny_inputs(batch), [[0.1, 0.2]] * batch if arm != "lora_only" else None)
        forward = counter.get_total_flops()
        output.square().mean().backward()
        total = counter.get_total_flops()
    shape = Shape.of(transformer)
    counted = step_flops(shape, config, tokens=12, batch=batch, text_tokens=7, checkpointing=checkpointing)
    assert counted.forward == forward
    assert counted.hardware == total


def test_a_true_step_is_about_four_operations_a_weight_and_token() -> None:
    """Forward 2N and backward 2N for frozen weights, plus attention and LoRA: an independent bound on the whole."""
    config = WAN_CONFIGS["wan2.1-t2v-1.3b"]
    transformer = random_transformer(config)
    control = ControlConfig(axes=(axis_control("shutter"),), blocks=resolve_blocks("deepest_third", 30))
    tokens = video_tokens(512, 512, 9)
    assert tokens == 3 * 32 * 32 and video_tokens(512, 512, 1) == 1024
    joint = step_flops(Shape.of(transformer), AdapterConfig(control=control, lora=LoraSettings()), tokens=tokens)
    text = 30 * 2 * config.width**2  # keys and values of the text, on 512 tokens
    weights = 30 * (8 * config.width**2 + 2 * config.width * config.ffn_dim) - text
    attention = 30 * 12 * tokens * (tokens + 512) * config.width
    assert joint.model == pytest.approx(4 * weights * tokens + 2 * text * 512 + attention, rel=0.06)
    lora_only = step_flops(Shape.of(transformer), AdapterConfig(control=None, lora=LoraSettings()), tokens=tokens)
    assert 1 < joint.model / lora_only.model < 1.002  # the control path's share of the operations


def test_what_utilisation_counts() -> None:
    step = StepFlops(forward=10, backward=20, recompute=9)
    assert (step.model, step.hardware) == (30, 39)
