"""Laws of the adapter: zero strength is the backbone, only the adapter trains, a forward pass stores nothing."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trainer_support import LAYERS, adapted, predict, scramble, tiny_config, tiny_inputs, tiny_transformer

from scenes.errors import InputError
from trainer.adapters.folder import attach_saved, save_adapter
from trainer.adapters.saved import SavedAdapter
from trainer.control import Mode, WanAdapter, attach

CONTROLS = [[0.4, -0.9], [-1.0, 0.3]]
DTYPES = (torch.float32, torch.bfloat16)


def snapshot(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return copies of every parameter and buffer, the ones that are not saved included."""
    return {name: tensor.detach().clone() for name, tensor in [*module.named_parameters(), *module.named_buffers()]}


def bare(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return the prediction of the backbone without any adapter."""
    with torch.no_grad():
        return predict(tiny_transformer().to(dtype), tiny_inputs(dtype=dtype))


def trained_like(transformer: torch.nn.Module) -> None:
    """Switch a transformer to training with gradient checkpointing."""
    transformer.train()
    transformer.enable_gradient_checkpointing()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", Mode)
def test_zero_strength_is_the_backbone(mode: Mode, dtype: torch.dtype) -> None:
    adapter = adapted(dtype=dtype)
    adapter.set_mode(mode, strength=0.0)
    with torch.no_grad():
        assert torch.equal(predict(adapter.transformer, tiny_inputs(dtype=dtype), CONTROLS), bare(dtype))
        adapter.set_mode(mode, strength=1.0)
        changed = predict(adapter.transformer, tiny_inputs(dtype=dtype), CONTROLS)
    assert torch.equal(changed, bare(dtype)) == (mode == Mode.BACKBONE_ONLY)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_fresh_adapter_is_the_backbone(dtype: torch.dtype, batch: int) -> None:
    """The embedding's last layer and LoRA's B are zero, so control values are, while the control path itself runs."""
    transformer = tiny_transformer().to(dtype)
    with torch.no_grad():
        before = predict(transformer, tiny_inputs(batch, dtype=dtype))
        adapter = attach(transformer, tiny_config(), dtype=torch.float32)
        adapter.set_mode("joint")
        assert torch.equal(predict(transformer, tiny_inputs(batch, dtype=dtype), [[0.7, -0.2]]), before)


def test_zero_strength_is_the_backbone_under_gradient_checkpointing() -> None:
    adapter = adapted()
    trained_like(adapter.transformer)
    adapter.set_mode("joint", strength=0.0)
    assert torch.equal(predict(adapter.transformer, tiny_inputs(), CONTROLS), bare())


def test_zero_strength_is_the_backbone_after_save_and_load(tmp_path: Path) -> None:
    adapter = adapted()
    save_adapter(tmp_path / "a", {"transformer": adapter}, backbone_id="tiny", step=1)
    fresh = tiny_transformer()
    loaded = attach_saved({"transformer": fresh}, SavedAdapter.open(tmp_path / "a"))
    with torch.no_grad():
        for mode in Mode:
            loaded["transformer"].set_mode(mode, strength=0.0)
            assert torch.equal(predict(fresh, tiny_inputs(), CONTROLS), bare())
            for other in (adapter, loaded["transformer"]):
                other.set_mode(mode)
            assert torch.equal(predict(fresh, tiny_inputs(), CONTROLS), predict(adapter.transformer, tiny_inputs(), CONTROLS))


@pytest.mark.filterwarnings("ignore")
def test_compiled_zero_strength_is_the_compiled_backbone() -> None:
    """Compiled by the graph tracer; the `eager` backend runs the traced graph, so that only tracing is under test."""
    adapter = adapted()
    with torch.no_grad():
        expected = predict(adapter.transformer, tiny_inputs(), CONTROLS)
        compiled = torch.compile(adapter.transformer, backend="eager", fullgraph=False)
        assert torch.equal(predict(compiled, tiny_inputs(), CONTROLS), expected)
        adapter.set_mode("joint", strength=0.0)
        assert torch.equal(predict(compiled, tiny_inputs(), CONTROLS), bare())
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore")
def test_the_ramp_does_not_recompile_the_blocks() -> None:
    adapter = adapted()
    counter = torch._dynamo.testing.CompileCounter()
    adapter.transformer.compile_repeated_blocks(backend=counter)
    with torch.no_grad():
        adapter.set_ramp(0.25)
        predict(adapter.transformer, tiny_inputs(), CONTROLS)
        frames = counter.frame_count
        for ramp in (0.5, 0.75, 1.0):
            adapter.set_ramp(ramp)
            predict(adapter.transformer, tiny_inputs(), CONTROLS)
    assert frames > 0 and counter.frame_count == frames
    torch._dynamo.reset()


def test_detaching_leaves_the_backbone_as_it_was() -> None:
    adapter = adapted()
    adapter.detach()
    assert adapter.transformer.state_dict().keys() == tiny_transformer().state_dict().keys()
    with torch.no_grad():
        assert torch.equal(predict(adapter.transformer, tiny_inputs()), bare())
    attach(adapter.transformer, tiny_config())


@pytest.mark.parametrize(("control", "lora"), [(True, True), (True, False), (False, True)])
def test_only_adapter_parameters_require_grad(control: bool, lora: bool) -> None:
    transformer = tiny_transformer()
    backbone = set(transformer.state_dict())
    adapter = attach(transformer, tiny_config(control=control, lora=lora))
    own = {id(parameter) for parameter in adapter.parameters().values()}
    for mode in ("control_only",) if not lora else ("lora_only",) if not control else Mode:
        adapter.set_mode(mode)
        for name, parameter in transformer.named_parameters():
            assert parameter.requires_grad == (id(parameter) in own), name
            assert (id(parameter) in own) != (name.replace(".base_layer", "") in backbone), name
    assert len(own) == (4 + 2 * 5) * control + LAYERS * 10 * 2 * lora


@pytest.mark.parametrize("checkpointing", [False, True])
def test_forward_and_backward_mutate_nothing(checkpointing: bool) -> None:
    adapter = adapted()
    if checkpointing:
        trained_like(adapter.transformer)
    before = snapshot(adapter.transformer)
    attributes = [
        {key: value for key, value in vars(module).items() if isinstance(value, int | float | bool | str | None)}
        for module in adapter.transformer.modules()
    ]
    predict(adapter.transformer, tiny_inputs(), CONTROLS).square().mean().backward()
    after = snapshot(adapter.transformer)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert attributes == [
        {key: value for key, value in vars(module).items() if isinstance(value, int | float | bool | str | None)}
        for module in adapter.transformer.modules()
    ]


def gradients(adapter: WanAdapter, *, checkpointing: bool) -> dict[str, torch.Tensor]:
    """Return the adapter's gradients of two forward passes with different controls, both backward passes after both."""
    adapter = copy.deepcopy(adapter)
    if checkpointing:
        trained_like(adapter.transformer)
    losses = [
        predict(adapter.transformer, tiny_inputs(seed=s), c).square().mean() for s, c in ((5, CONTROLS), (6, [[1.5, 0.0]]))
    ]
    for loss in losses:
        loss.backward()
    return {name: parameter.grad for name, parameter in adapter.parameters().items()}


@pytest.mark.parametrize("gate", ["fixed", "learned"])
def test_gradients_are_the_same_with_and_without_checkpointing(gate: str) -> None:
    adapter = adapted(tiny_config(gate=gate))
    adapter.set_mode("joint")
    plain, checkpointed = gradients(adapter, checkpointing=False), gradients(adapter, checkpointing=True)
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        assert gradient.abs().max() > 0, name
        assert torch.equal(gradient, checkpointed[name]), name


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2)), min_size=2, max_size=4))
def test_a_batch_of_mixed_controls_equals_the_single_runs(controls: list[tuple[float, float]]) -> None:
    adapter = adapted()
    inputs = tiny_inputs(len(controls))
    with torch.no_grad():
        together = predict(adapter.transformer, inputs, [list(pair) for pair in controls])
        for row, pair in enumerate(controls):
            alone = predict(adapter.transformer, {k: v[row : row + 1] for k, v in inputs.items()}, [list(pair)])
            torch.testing.assert_close(together[row : row + 1], alone, atol=2e-5, rtol=1e-5)


def test_each_axis_and_each_row_is_seen() -> None:
    adapter = adapted()
    with torch.no_grad():
        base = predict(adapter.transformer, tiny_inputs(), [[0.1, 0.2], [0.1, 0.2]])
        for axis in range(2):
            moved = [[0.1, 0.2], [0.1, 0.2]]
            moved[1][axis] = 0.9
            changed = predict(adapter.transformer, tiny_inputs(), moved)
            torch.testing.assert_close(changed[0], base[0], atol=1e-5, rtol=0)
            assert (changed[1] - base[1]).abs().max() > 1e-3


def test_lora_outside_the_conditioned_blocks_has_no_effect_in_decoupled() -> None:
    adapter = adapted()
    outputs = {}
    for mode in ("decoupled", "joint", "control_only"):
        adapter.set_mode(mode)
        with torch.no_grad():
            outputs[mode] = predict(adapter.transformer, tiny_inputs(), CONTROLS)
    with torch.no_grad():
        for name, parameter in adapter.lora_parameters().items():
            if int(name.split(".")[1]) not in adapter.config.control.blocks:
                parameter.mul_(7.0)
    for mode, before in outputs.items():
        adapter.set_mode(mode)
        with torch.no_grad():
            same = torch.equal(predict(adapter.transformer, tiny_inputs(), CONTROLS), before)
        assert same == (mode != "joint")
    with torch.no_grad():
        for parameter in adapter.lora_parameters().values():
            parameter.zero_()
        adapter.set_mode("decoupled")
        bare_lora = predict(adapter.transformer, tiny_inputs(), CONTROLS)
    assert torch.equal(bare_lora, outputs["control_only"]) and not torch.equal(bare_lora, outputs["decoupled"])


def test_strength_and_ramp_scale_what_they_say() -> None:
    """The control part of a block's attention is proportional to strength times ramp."""
    adapter = adapted(tiny_config(lora=False))
    processor = adapter.processors[3]
    attn = adapter.transformer.blocks[3].attn2
    prefix = adapter.embedding(torch.tensor(CONTROLS))
    text, video = torch.randn(2, 7, 32), torch.randn(2, 9, 32)
    context = torch.cat([prefix, text], dim=1)

    def attention() -> torch.Tensor:
        with torch.no_grad():
            return processor(attn, video, context)

    adapter.set_ramp(1.0)
    full = attention()
    adapter.set_ramp(0.5)
    half = attention()
    adapter.set_mode("control_only", strength=0.5)
    quarter = attention()
    adapter.set_ramp(0.0)
    assert processor.prefix == 0
    with torch.no_grad():
        none = processor(attn, video, text)
    torch.testing.assert_close(half - none, (full - none) / 2, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(quarter - none, (full - none) / 4, atol=1e-6, rtol=1e-4)
    assert (full - none).abs().max() > 1e-3


def test_the_control_attention_is_the_formula_of_the_method() -> None:
    adapter = adapted(tiny_config("shutter", lora=False))
    processor, attn = adapter.processors[2], adapter.transformer.blocks[2].attn2
    text, video = torch.randn(2, 7, 32), torch.randn(2, 9, 32)
    controls = torch.tensor([[0.3], [-1.2]])
    prefix = adapter.embedding(controls)
    with torch.no_grad():
        output = processor(attn, video, torch.cat([prefix, text], dim=1))
        p = adapter.control_parameters()
        e = torch.nn.functional.silu(controls @ p["embedding.lin1.weight"].T + p["embedding.lin1.bias"])
        e = e @ p["embedding.lin2.weight"].T + p["embedding.lin2.bias"]
        key = (e @ p["blocks.2.key_down.weight"].T @ p["blocks.2.key_up.weight"].T).reshape(2, 3, 32)
        key = key / (key.square().mean(-1, keepdim=True) + 1e-6).sqrt() * p["blocks.2.key_norm.weight"] * 7 / 5
        value = (e @ p["blocks.2.value_down.weight"].T @ p["blocks.2.value_up.weight"].T).reshape(2, 3, 32) * 7 / 5
        query = attn.norm_q(attn.to_q(video))

        def attend(k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            heads = [part.unflatten(2, (2, 16)).transpose(1, 2) for part in (query, k, v)]
            weights = (heads[0] @ heads[1].transpose(-1, -2) / 4).softmax(-1)
            return (weights @ heads[2]).transpose(1, 2).flatten(2)

        expected = attend(attn.norm_k(attn.to_k(text)), attn.to_v(text)) + 0.5 * attend(key, value)
        torch.testing.assert_close(output, attn.to_out[0](expected), atol=1e-5, rtol=1e-4)


def test_initial_values_are_as_designed() -> None:
    adapter = attach(tiny_transformer(heads=4, head_dim=32), tiny_config(), seed=11)
    drawn = {name: parameter.detach() for name, parameter in adapter.control_parameters().items()}
    for name, tensor in drawn.items():
        if name.startswith("embedding.lin2"):
            assert not tensor.any()
        if "_down." in name:
            assert 0.008 < tensor.std() < 0.012
        if "_up." in name:
            assert 0.9e-4 < tensor.std() < 1.1e-4
        if "key_norm" in name:
            assert (tensor == 1).all()
    again = attach(tiny_transformer(heads=4, head_dim=32), tiny_config(), seed=11).parameters()
    other = attach(tiny_transformer(heads=4, head_dim=32), tiny_config(), seed=12).parameters()
    assert all(torch.equal(again[name], parameter) for name, parameter in adapter.parameters().items())
    assert not torch.equal(other["blocks.2.key_down.weight"], drawn["blocks.2.key_down.weight"])
    assert not torch.equal(other["blocks.0.ffn.net.2.lora_A.weight"], adapter.parameters()["blocks.0.ffn.net.2.lora_A.weight"])


def test_attaching_leaves_the_global_generator_alone() -> None:
    transformer = tiny_transformer()
    state = torch.get_rng_state()
    attach(transformer, tiny_config())
    assert torch.equal(torch.get_rng_state(), state)


def test_float32_adapters_work_on_a_bfloat16_backbone_with_and_without_autocast() -> None:
    transformer = tiny_transformer().to(torch.bfloat16)
    adapter = scramble(attach(transformer, tiny_config(), dtype=torch.float32))
    adapter.set_mode("joint")
    assert {parameter.dtype for parameter in adapter.parameters().values()} == {torch.float32}
    assert transformer.dtype == torch.bfloat16
    plain = predict(transformer, tiny_inputs(dtype=torch.bfloat16), CONTROLS)
    with torch.autocast("cpu", torch.bfloat16):
        cast = predict(transformer, tiny_inputs(dtype=torch.bfloat16), CONTROLS)
    exact = adapted()
    exact.set_mode("joint")
    with torch.no_grad():
        truth = predict(exact.transformer, tiny_inputs(), CONTROLS)
    for output in (plain, cast):
        assert output.dtype == torch.bfloat16
        assert (output.float() - truth).norm() < 0.03 * truth.norm()
    plain.float().square().mean().backward()
    assert all(parameter.grad is not None for parameter in adapter.parameters().values())


@pytest.mark.parametrize(
    ("controls", "message"),
    [
        (None, "without controls"),
        ([[0.1]], r"shape \[1, 1\] do not fit a batch of 2 videos and 2 axes"),
        ([[0.1, 0.2]] * 3, r"shape \[3, 2\]"),
        ([0.1, 0.2], r"shape \[2\]"),
    ],
)
def test_wrong_controls_are_refused(controls: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        predict(adapted().transformer, tiny_inputs(), controls)


def test_modes_that_need_an_absent_part_are_refused() -> None:
    with pytest.raises(InputError, match="needs a LoRA, this adapter has none; use 'control_only'"):
        attach(tiny_transformer(), tiny_config(lora=False)).set_mode("joint")
    with pytest.raises(InputError, match="needs a control adapter, this adapter has none; use 'lora_only'"):
        attach(tiny_transformer(), tiny_config(control=False)).set_mode("decoupled")
    with pytest.raises(InputError, match=r"mode 'decopled' is unknown \(did you mean 'decoupled'\?\)"):
        adapted().set_mode("decopled")
    with pytest.raises(InputError, match="strength nan"):
        adapted().set_mode("joint", strength=float("nan"))


def test_an_adapter_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="conditions block 3, this backbone has blocks 0 to 2"):
        attach(tiny_transformer(layers=3), tiny_config())
    with pytest.raises(InputError, match="already carries an adapter"):
        attach(adapted().transformer, tiny_config(lora=False))
    with pytest.raises(InputError, match="already carries an adapter"):
        attach(attach(tiny_transformer(), tiny_config(control=False)).transformer, tiny_config(control=False))
