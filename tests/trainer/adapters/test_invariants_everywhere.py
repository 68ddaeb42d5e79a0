"""The adapter's laws over random configurations: axes, blocks, ranks, gates, dtypes, with and without either part."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trainer_support import LAYERS, predict, scramble, tiny_inputs, tiny_transformer

from scenes.errors import InputError
from trainer.adapters.folder import attach_saved, save_adapter
from trainer.adapters.saved import SavedAdapter
from trainer.control import AdapterConfig, ControlConfig, LoraSettings, Mode, WanAdapter, attach, axis_control
from trainer.control.modes import check_mode
from trainer.formats.published import original_settings, published_axes, read_published, write_published

pytestmark = pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # float32 norms under autocast
FEW = settings(max_examples=12, deadline=None)
DTYPES = st.sampled_from([torch.float32, torch.bfloat16])
AXES = ("shutter", "aperture", "temperature")


@st.composite
def configs(draw: st.DrawFn, *, both: bool = False) -> AdapterConfig:
    """Draw an adapter for the tiny backbone; with `both`, one that has control and LoRA."""
    parts = "both" if both else draw(st.sampled_from(["both", "control", "lora"]))
    control = ControlConfig(
        axes=tuple(axis_control(name) for name in draw(st.permutations(AXES))[: draw(st.integers(1, 3))]),
        blocks=tuple(sorted(draw(st.sets(st.integers(0, LAYERS - 1), min_size=1)))),
        rank=draw(st.integers(1, 6)),
        alpha=draw(st.sampled_from([1.0, 5.0, 32.0])),
        tokens=draw(st.integers(1, 5)),
        embed_dim=draw(st.sampled_from([3, 32, 40, 65])),  # less than, exactly, and more than one token of 32
        hidden_dim=draw(st.integers(1, 8)),
        gate=draw(st.sampled_from(["fixed", "learned"])),
        gate_value=draw(st.sampled_from([0.5, 1.0, -0.3])),
    )
    lora = LoraSettings(rank=draw(st.integers(1, 4)), alpha=draw(st.sampled_from([1.0, 4.0])))
    return AdapterConfig(control=control if parts != "lora" else None, lora=lora if parts != "control" else None)


def modes_of(config: AdapterConfig) -> list[Mode]:
    """Return the modes that a configuration can serve."""
    served = []
    for mode in Mode:
        try:
            check_mode(mode, config)
        except InputError:
            continue
        served.append(mode)
    return served


def full_mode(config: AdapterConfig) -> str:
    """Return the mode in which everything that an adapter has acts."""
    if config.control is None:
        return "lora_only"
    return "joint" if config.lora is not None else "control_only"


def controls_for(config: AdapterConfig, batch: int = 2) -> list[list[float]] | None:
    """Return different controls for every video and axis."""
    if config.control is None:
        return None
    return [[0.9 - 0.7 * row + 0.3 * column for column in range(len(config.control.axes))] for row in range(batch)]


@FEW
@given(config=configs(), dtype=DTYPES, checkpointing=st.booleans(), loaded=st.booleans(), data=st.data())
def test_zero_strength_is_the_backbone(
    config: AdapterConfig, dtype: torch.dtype, checkpointing: bool, loaded: bool, data: st.DataObject
) -> None:
    transformer = tiny_transformer().to(dtype)
    with torch.no_grad():
        bare = predict(transformer, tiny_inputs(dtype=dtype))
    adapter = scramble(attach(transformer, config, dtype=torch.float32))
    if loaded:
        with tempfile.TemporaryDirectory() as folder:
            save_adapter(Path(folder) / "a", {"transformer": adapter}, backbone_id="tiny", step=1)
            adapter.detach()
            adapter = attach_saved({"transformer": transformer}, SavedAdapter.open(Path(folder) / "a"))["transformer"]
    mode = data.draw(st.sampled_from(modes_of(config)))
    if checkpointing:
        transformer.train()
        transformer.enable_gradient_checkpointing()
    adapter.set_mode(mode, strength=0.0)
    assert torch.equal(predict(transformer, tiny_inputs(dtype=dtype), controls_for(config)), bare)
    adapter.set_mode(mode, strength=1.0)
    acting = predict(transformer, tiny_inputs(dtype=dtype), controls_for(config))
    assert torch.equal(acting, bare) == (mode == Mode.BACKBONE_ONLY)


@FEW
@given(config=configs(), data=st.data())
def test_only_adapter_names_require_grad(config: AdapterConfig, data: st.DataObject) -> None:
    transformer = tiny_transformer()
    own = set(transformer.state_dict())
    adapter = attach(transformer, config)
    adapter.set_mode(data.draw(st.sampled_from(modes_of(config))))
    training = {name for name, parameter in transformer.named_parameters() if parameter.requires_grad}
    assert not {name.replace(".base_layer", "") for name in training} & own
    assert len(training) == len(adapter.parameters())
    inner = ("condition_embedder.image_embedder.", ".attn2.processor.", ".lora_A.stopdown.", ".lora_B.stopdown.")
    assert all(any(part in name for part in inner) for name in training)


def everything(adapter: WanAdapter) -> dict[str, Any]:
    """Return all that a forward pass could change: who holds what, and how often each tensor was written to."""
    held: dict[str, Any] = {f"adapter.{name}": id(value) for name, value in vars(adapter).items()}
    for path, module in adapter.transformer.named_modules(remove_duplicate=False):
        for name, value in vars(module).items():
            inner = value.items() if isinstance(value, dict) else [("", value)]
            held |= {f"{path}.{name}.{key}": id(item) for key, item in inner}
            held[f"{path}.{name}"] = len(value) if isinstance(value, dict | list | set | tuple) else repr(type(value))
    for name, tensor in [*adapter.transformer.named_parameters(), *adapter.transformer.named_buffers()]:
        held[f"tensor {name}"] = (tensor._version, tensor.data_ptr(), tensor.requires_grad, tensor.dtype)
    for block in adapter.transformer.blocks:  # a pass-through processor is no module
        held |= {f"{id(block)}.{name}": repr(value) for name, value in vars(block.attn2.processor).items() if name == "prefix"}
    return held


@FEW
@given(config=configs(), checkpointing=st.booleans(), data=st.data())
def test_forward_and_backward_change_nothing(config: AdapterConfig, checkpointing: bool, data: st.DataObject) -> None:
    adapter = scramble(attach(tiny_transformer(), config))
    adapter.set_mode(data.draw(st.sampled_from(modes_of(config))))
    if checkpointing:
        adapter.transformer.train()
        adapter.transformer.enable_gradient_checkpointing()
    weights = {name: tensor.clone() for name, tensor in adapter.transformer.state_dict().items()}
    before, random_state = everything(adapter), torch.get_rng_state()
    output = predict(adapter.transformer, tiny_inputs(), controls_for(config))
    assert everything(adapter) == before
    if output.requires_grad:
        output.square().mean().backward()
    assert everything(adapter) == before and torch.equal(torch.get_rng_state(), random_state)
    after = adapter.transformer.state_dict()
    assert after.keys() == weights.keys() and all(torch.equal(after[name], tensor) for name, tensor in weights.items())


@FEW
@given(config=configs(), dtype=DTYPES, autocast=st.booleans())
def test_gradients_do_not_depend_on_checkpointing(config: AdapterConfig, dtype: torch.dtype, autocast: bool) -> None:
    gradients = []
    for checkpointing in (False, True):
        adapter = scramble(attach(tiny_transformer().to(dtype), config, dtype=torch.float32))
        adapter.set_mode(full_mode(config))
        adapter.transformer.train()
        if checkpointing:
            adapter.transformer.enable_gradient_checkpointing()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = predict(adapter.transformer, tiny_inputs(dtype=dtype), controls_for(config))
        output.float().square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in adapter.parameters().items()})
    plain, checkpointed = gradients
    assert plain.keys() == checkpointed.keys() and len(plain) > 0
    for name, gradient in plain.items():
        assert gradient is not None and gradient.isfinite().all(), name
        assert torch.equal(gradient, checkpointed[name]), name


@FEW
@given(config=configs(both=True), data=st.data())
def test_a_batch_of_mixed_controls_equals_the_single_runs(config: AdapterConfig, data: st.DataObject) -> None:
    adapter = scramble(attach(tiny_transformer(), config), scale=0.15)
    adapter.set_mode(data.draw(st.sampled_from(list(Mode))))
    inputs, controls = tiny_inputs(3), controls_for(config, 3)
    with torch.no_grad():
        together = predict(adapter.transformer, inputs, controls)
        for row in range(3):
            single = {name: value[row : row + 1] for name, value in inputs.items()}
            alone = predict(adapter.transformer, single, controls[row : row + 1])
            torch.testing.assert_close(together[row : row + 1], alone, atol=5e-5, rtol=1e-4)


@FEW
@given(config=configs(both=True), factor=st.sampled_from([0.0, -3.0, 11.0]))
def test_decoupled_is_blind_to_lora_outside_the_conditioned_blocks(config: AdapterConfig, factor: float) -> None:
    adapter = scramble(attach(tiny_transformer(), config))
    adapter.set_mode("decoupled")
    conditioned = config.control.blocks
    with torch.no_grad():
        before = predict(adapter.transformer, tiny_inputs(), controls_for(config))
        for name, parameter in adapter.lora_parameters().items():
            if int(name.split(".")[1]) not in conditioned:
                parameter.mul_(factor)
        assert torch.equal(predict(adapter.transformer, tiny_inputs(), controls_for(config)), before)
        for name, parameter in adapter.lora_parameters().items():
            if int(name.split(".")[1]) in conditioned:
                parameter.mul_(factor)
        assert not torch.equal(predict(adapter.transformer, tiny_inputs(), controls_for(config)), before)


@FEW
@given(config=configs(both=True))
def test_published_names_go_round_for_any_adapter(config: AdapterConfig) -> None:
    axes = published_axes(["shutter", "aperture", "temperature"][: len(config.control.axes)])
    lora = config.lora.model_copy(update={"alpha": float(config.lora.rank)})  # alpha is the rank there
    control = config.control.model_copy(update={"axes": axes, "gate": "fixed"})  # it knows no learned gate
    config = AdapterConfig(control=control, lora=lora)
    adapter = scramble(attach(tiny_transformer(), config))
    written = write_published(config, adapter.control_parameters(), adapter.lora_parameters())
    assert all(name.startswith("diffusion_model.") for name in written)
    again = read_published(written, axes, settings=original_settings(control), source="there and back")
    assert again.config == config
    for received, own in ((again.control, adapter.control_parameters()), (again.lora, adapter.lora_parameters())):
        assert received.keys() == own.keys()
        assert all(torch.equal(received[name], parameter) for name, parameter in own.items())


@FEW
@given(config=configs(), change=st.sampled_from(["missing", "unexpected", "shape"]), data=st.data())
def test_loading_is_strict_for_every_weight(config: AdapterConfig, change: str, data: st.DataObject) -> None:
    adapter = scramble(attach(tiny_transformer(), config))
    weights = {name: parameter.detach().clone() for name, parameter in adapter.parameters().items()}
    target = data.draw(st.sampled_from(sorted(weights)))
    changed = dict(weights)
    if change == "missing":
        del changed[target]
    elif change == "unexpected":
        changed[f"{target}x"] = changed[target]
    else:
        changed[target] = torch.zeros(*changed[target].shape, 2)
    control = {name: tensor for name, tensor in changed.items() if ".lora_" not in name}
    lora = {name: tensor for name, tensor in changed.items() if ".lora_" in name}
    with pytest.raises(InputError) as caught:
        adapter.load({name: tensor + 1 for name, tensor in control.items()}, lora, "the file")
    assert target in str(caught.value) and "\n" not in str(caught.value)
    assert all(torch.equal(weights[name], parameter) for name, parameter in adapter.parameters().items())  # nothing half loaded


def test_a_text_that_wants_a_gradient_is_refused_rather_than_given_none() -> None:
    config = AdapterConfig(control=ControlConfig(axes=(axis_control("shutter"),), blocks=(2, 3)), lora=None)
    adapter = scramble(attach(tiny_transformer(), config))
    wanting = tiny_inputs()
    wanting["encoder_hidden_states"].requires_grad_(True)
    with pytest.raises(InputError, match="the text of this call wants a gradient"):
        predict(adapter.transformer, wanting, [[0.5]])
    with torch.no_grad():
        predict(adapter.transformer, wanting, [[0.5]])
    adapter.set_mode("backbone_only")
    predict(adapter.transformer, wanting).sum().backward()
    assert wanting["encoder_hidden_states"].grad.abs().max() > 0
    adapter.set_mode("control_only")
    adapter.transformer.condition_embedder.text_embedder.requires_grad_(True)
    with pytest.raises(InputError, match="freeze the text embedder"):
        predict(adapter.transformer, tiny_inputs(), [[0.5]])
