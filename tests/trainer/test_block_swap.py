"""Blocks that wait in main memory: the same losses and gradients, bit for bit, with two of them on the device at most."""

from __future__ import annotations

import gc
import importlib.util

import pytest
import torch
from torch import Tensor
from trainer_support import LAYERS, predict, scramble, tiny_config, tiny_inputs, tiny_transformer

from scenes.errors import InputError
from trainer.backbones.quantize import Quantization, quantize_in_place, weight_bytes
from trainer.config.recipe import parse_settings
from trainer.control import WanAdapter, attach
from trainer.estimates.footprint import FRAGMENTATION, estimate_memory
from trainer.training.block_swap import BlockSwap, swap_blocks
from trainer.training.tasks.flow import Experts

pytestmark = pytest.mark.filterwarnings("ignore:.*get_apply_tensor_subclass", "ignore:.*Enum subclass")
CPU = torch.device("cpu")
CONTROLS = [[0.4, -0.9], [-1.0, 0.3]]
Step = tuple[float, dict[str, Tensor]]


def adapter(*, lora: bool = True, packing: Quantization = Quantization.NONE) -> WanAdapter:
    """Return an adapter under training on a bfloat16 backbone, as the task makes it."""
    transformer = tiny_transformer().to(torch.bfloat16)
    quantize_in_place(transformer, packing)
    made = scramble(attach(transformer, tiny_config(lora=lora), dtype=torch.float32))
    made.set_mode("joint" if lora else "control_only")
    made.transformer.train()
    return made


def step(made: WanAdapter, seed: int = 1) -> Step:
    """Return a loss and its gradients."""
    for parameter in made.parameters().values():
        parameter.grad = None
    with torch.autocast("cpu", torch.bfloat16):
        loss = predict(made.transformer, tiny_inputs(seed=seed, dtype=torch.bfloat16), CONTROLS).float().square().mean()
    loss.backward()
    return float(loss.detach()), {name: p.grad.clone() for name, p in made.parameters().items() if p.grad is not None}


def assert_same(one: Step, other: Step) -> None:
    assert one[0] == other[0] and set(one[1]) == set(other[1])
    for name, gradient in one[1].items():
        assert torch.equal(gradient, other[1][name]), name


def block_bytes(made: WanAdapter) -> int:
    """Return the bytes of a block's frozen matrices."""
    frozen = [p for p in made.transformer.blocks[0].parameters() if p.ndim == 2 and not p.requires_grad]
    return sum(p.numel() * p.element_size() for p in frozen)


@pytest.mark.parametrize(
    ("count", "checkpointing", "lora"),
    [(1, False, True), (2, True, True), (LAYERS, False, True), (LAYERS, True, True), (3, True, False), (LAYERS, False, False)],
)
def test_swapped_blocks_give_the_same_losses_and_gradients(count: int, checkpointing: bool, lora: bool) -> None:
    plain, swapped = adapter(lora=lora), adapter(lora=lora)
    for made in (plain, swapped):
        if checkpointing:
            made.transformer.enable_gradient_checkpointing()
    (swap,) = swap_blocks(swapped.transformer, count, CPU)
    for seed in (1, 2):  # a second step finds everything as the first one did
        assert_same(step(plain, seed), step(swapped, seed))
        gc.collect()
        assert swap.device_bytes == 0
    with torch.no_grad():
        inputs = tiny_inputs(dtype=torch.bfloat16)
        assert torch.equal(predict(plain.transformer, inputs, CONTROLS), predict(swapped.transformer, inputs, CONTROLS))
    assert swap.device_bytes == 0
    assert_same(step(plain), step(swapped))
    assert swap.peak_bytes == min(count, 2) * block_bytes(plain)
    own, reached = dict(plain.transformer.named_parameters()), dict(swapped.transformer.named_parameters())
    assert set(own) == set(reached) and all(torch.equal(own[name], reached[name]) for name in own)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_no_copy_waits_for_the_backward_pass_which_reads_main_memory_again(checkpointing: bool) -> None:
    made = adapter()
    if checkpointing:
        made.transformer.enable_gradient_checkpointing()
    expected = step(made)
    (swap,) = swap_blocks(made.transformer, LAYERS, CPU)
    for parameter in made.parameters().values():
        parameter.grad = None
    with torch.autocast("cpu", torch.bfloat16):
        loss = predict(made.transformer, tiny_inputs(dtype=torch.bfloat16), CONTROLS).float().square().mean()
    assert swap.device_bytes == 0
    frozen = dict(made.transformer.named_parameters())
    with torch.no_grad():
        frozen[swap.paths[0]].zero_()
        frozen[swap.paths[-1]].zero_()
    loss.backward()
    assert any(not torch.equal(p.grad, expected[1][name]) for name, p in made.parameters().items() if p.grad is not None)


def test_two_forward_passes_may_come_before_their_backward_passes() -> None:
    sums = []
    for count in (0, 3):
        made = adapter()
        if count:
            swap_blocks(made.transformer, count, CPU)
        with torch.autocast("cpu", torch.bfloat16):
            both = [predict(made.transformer, tiny_inputs(seed=s, dtype=torch.bfloat16), CONTROLS) for s in (1, 2)]
        for made_of_one in both:
            made_of_one.float().square().mean().backward()
        sums.append((0.0, {name: p.grad for name, p in made.parameters().items() if p.grad is not None}))
    assert_same(*sums)


@pytest.mark.parametrize("packing", [Quantization.FP8, Quantization.INT8])
def test_packed_blocks_are_swapped_packed(packing: Quantization) -> None:
    if importlib.util.find_spec("torchao") is None:
        pytest.skip("torchao is not installed")
    plain, swapped = adapter(packing=packing), adapter(packing=packing)
    for made in (plain, swapped):
        made.transformer.enable_gradient_checkpointing()
    (swap,) = swap_blocks(swapped.transformer, 3, CPU)
    assert_same(step(plain), step(swapped))
    gc.collect()
    assert swap.device_bytes == 0 and 0 < swap.peak_bytes < 2 * 0.8 * block_bytes(adapter())


def test_each_of_two_experts_swaps_its_own() -> None:
    parts = [adapter(), adapter()]
    module = Experts({"transformer": parts[0].transformer, "transformer_2": parts[1].transformer})
    swaps = swap_blocks(module, 2, CPU)
    named = dict(module.named_parameters())
    assert len(swaps) == 2 and len(module._ddp_params_and_buffers_to_ignore) == 2 * len(swaps[0].paths)
    assert all(not named[name].requires_grad for name in module._ddp_params_and_buffers_to_ignore)
    assert_same(step(adapter()), step(parts[1]))


def test_what_moves_is_all_but_the_waiting_weights() -> None:
    made = adapter()
    total = weight_bytes(made.transformer)
    swap = BlockSwap(made.transformer, 3, CPU)
    with swap.without_weights():
        assert weight_bytes(made.transformer) == total - 3 * block_bytes(adapter())
    assert weight_bytes(made.transformer) == total


@pytest.mark.parametrize("count", [0, 1, 2, LAYERS])
def test_the_estimate_is_what_stays_and_two_blocks(count: int) -> None:
    made = adapter()
    backbone = weight_bytes(tiny_transformer().to(torch.bfloat16))
    config = made.config
    plain = estimate_memory(made.transformer.config, config, tokens=64)
    swapped = estimate_memory(made.transformer.config, config, tokens=64, swapped=count)
    spared = (count - min(count, 2)) * block_bytes(made)
    assert plain.backbone - swapped.backbone == pytest.approx(FRAGMENTATION * spared, abs=2)
    assert plain.backbone / FRAGMENTATION == pytest.approx(backbone, rel=0.2)  # norms are float32 in a loaded one
    assert swapped.main_memory >= count * block_bytes(made) and bool(swapped.main_memory) == bool(count)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (('train.backbone.quantization="nf4"',), "nf4"),
        (("train.compile=true",), "compiled"),
        (('train.method="transformer"',), "trains them"),
        (("train.gradient_checkpointing=false", 'train.backbone.dtype="float32"'), "gradient_checkpointing"),
        (("train.gradient_checkpointing=false", 'train.backbone.quantization="fp8"'), "gradient_checkpointing"),
    ],
)
def test_settings_under_which_nothing_can_wait_are_one_line(overrides: tuple[str, ...], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        parse_settings('[train]\ndataset = "d"\n', source="r.toml", overrides=["train.backbone.blocks_to_swap=2", *overrides])
    assert "\n" not in str(caught.value)
