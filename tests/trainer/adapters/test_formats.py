"""Names of weights both ways, and the strictness of every reader."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from trainer_support import LAYERS, adapted, tiny_config, tiny_transformer

from scenes.errors import InputError
from trainer.adapters.conversion.convert import condition_blocks, convert
from trainer.adapters.conversion.sources import AdapterFormat, Source, read_source
from trainer.adapters.folder import save_adapter
from trainer.control import AdapterConfig, ControlConfig, LoraSettings, axis_control, resolve_blocks
from trainer.formats.comfyui import from_comfyui, to_comfyui
from trainer.formats.published import (
    control_names,
    control_shapes,
    original_settings,
    published_axes,
    read_published,
    write_published,
)
from trainer.weights.key_names import backbone_names, inverse, lora_names
from trainer.weights.strict import check_exact


def publishable() -> AdapterConfig:
    """Return a configuration that the published format can say: LoRA alpha equal to its rank."""
    control = tiny_config().control.model_copy(update={"axes": published_axes(["shutter", "temperature"])})
    return AdapterConfig(control=control, lora=LoraSettings(rank=4, alpha=4))


def test_backbone_names_are_a_bijection_onto_diffusers_own() -> None:
    names = backbone_names(LAYERS)
    assert set(names.values()) == set(tiny_transformer().state_dict())
    assert len(inverse(names)) == len(names)


def test_lora_names_are_a_bijection_onto_pefts_own() -> None:
    names = lora_names(LAYERS)
    assert set(names.values()) == set(adapted().lora_parameters())
    assert len(inverse(names)) == len(names) == LAYERS * 10 * 2


def test_control_names_and_shapes_are_those_of_the_modules() -> None:
    for gate in ("fixed", "learned"):
        adapter = adapted(tiny_config(gate=gate))
        shapes = {name: tuple(parameter.shape) for name, parameter in adapter.control_parameters().items()}
        assert shapes == control_shapes(adapter.config.control, width=32)
        named = set(control_names(adapter.config.control.blocks).values())
        assert named == {name for name in shapes if not name.endswith(".gate.value")}


@pytest.mark.parametrize("alpha", [4.0, 6.0])
def test_comfyui_goes_round_exactly(alpha: float) -> None:
    lora = {name: p.detach() for name, p in adapted().lora_parameters().items()}
    written = to_comfyui(lora, LoraSettings(rank=4, alpha=alpha), LAYERS)
    assert all(name.startswith("diffusion_model.blocks.") for name in written)
    again, settings = from_comfyui(written, LAYERS, "file")
    assert settings == LoraSettings(rank=4, alpha=alpha)
    assert again.keys() == lora.keys() and all(torch.equal(again[name], tensor) for name, tensor in lora.items())


def test_diffusers_reads_the_comfyui_file_as_the_same_lora() -> None:
    adapter = adapted(tiny_config(control=False))
    lora = {name: p.detach() for name, p in adapter.lora_parameters().items()}
    written = to_comfyui(lora, adapter.config.lora, LAYERS)
    converted = WanPipeline.lora_state_dict({name: tensor.clone() for name, tensor in written.items()})  # it scales in place
    for name in lora_names(LAYERS).values():
        if name.endswith("lora_A.weight"):
            other = name.replace("lora_A", "lora_B")
            product = converted[f"transformer.{other}"] @ converted[f"transformer.{name}"]
            torch.testing.assert_close(product, lora[other] @ lora[name] * (6.0 / 4.0))


def test_published_file_goes_round_exactly(tmp_path: Path) -> None:
    adapter = adapted(publishable())
    control = {name: p.detach() for name, p in adapter.control_parameters().items()}
    lora = {name: p.detach() for name, p in adapter.lora_parameters().items()}
    made = Source(path=tmp_path, format=AdapterFormat.DIFFUSERS, config=adapter.config, control=control, lora=lora)
    convert(made, tmp_path / "p.safetensors", "published")
    again = read_source(tmp_path / "p.safetensors")
    assert again.config == adapter.config
    for own, read in ((control, again.control), (lora, again.lora)):
        assert own.keys() == read.keys() and all(torch.equal(own[name], read[name]) for name in own)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": None}, "does not say its alpha and has rank 5"),
        ({"fps_gate_mode": "sigmoid"}, "gate mode 'sigmoid'"),
        ({"fps_tau_transform": ["raw", "log1p"]}, r"fps_tau_transform = \['raw', 'log1p'\]"),
        ({"fps_tau_scale": 0.5}, "fps_tau_scale = 0.5"),
        ({"fps_scale": True}, "fps_scale"),
    ],
)
def test_settings_without_an_equal_are_refused(change: dict, message: str) -> None:
    config = publishable()
    weights = fake_published(config)
    settings = original_settings(config.control) | change
    if "alpha" in change:
        del settings["fps_lora_alpha"]
    with pytest.raises(InputError, match=message):
        read_published(weights, config.control.axes, settings=settings, source="file")


def fake_published(config: AdapterConfig) -> dict[str, torch.Tensor]:
    """Return weights of the right names and shapes."""
    adapter = adapted(config)
    control = {name: p.detach() for name, p in adapter.control_parameters().items()}
    return write_published(config, control, {name: p.detach() for name, p in adapter.lora_parameters().items()})


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", r"1 missing \(diffusion_model.blocks.3.fps_adapter.v_fps_up.weight\)"),
        ("unexpected", r"1 unexpected \(diffusion_model.blocks.1.ffn.0.lora_A.weightx\)"),
        ("shape", r"blocks.3.value_up.weight \[95, 5\] instead of \[96, 5\]"),
        ("gap", r"LoRA in blocks \[0, 1, 3\]"),
        ("axes", "controls 2 axes, 1 were named"),
        ("empty", "no tensor named like"),
    ],
)
def test_published_checkpoints_load_strictly(fault: str, message: str) -> None:
    config = publishable()
    weights, axes = fake_published(config), config.control.axes
    up = "diffusion_model.blocks.3.fps_adapter.v_fps_up.weight"
    if fault == "missing":
        del weights[up]
    elif fault == "unexpected":
        weights["diffusion_model.blocks.1.ffn.0.lora_A.weightx"] = torch.zeros(1)
    elif fault == "shape":
        weights[up] = weights[up][1:]
    elif fault == "gap":
        weights = {name: tensor for name, tensor in weights.items() if ".blocks.2." not in name or "fps" in name}
    elif fault == "axes":
        axes = axes[:1]
    else:
        weights = {}
    with pytest.raises(InputError, match=message):
        read_published(weights, axes, settings=original_settings(config.control), source="file")


def test_what_the_published_format_cannot_say_is_refused() -> None:
    learned, scaled, plain = tiny_config(gate="learned"), tiny_config(), tiny_config(control=False)
    for config, message in ((learned, "no learned gate"), (scaled, "has no LoRA alpha"), (plain, "this one has none")):
        with pytest.raises(InputError, match=message):
            write_published(config, {}, {})


def test_a_comfyui_file_loads_strictly() -> None:
    lora = {name: p.detach() for name, p in adapted().lora_parameters().items()}
    written = to_comfyui(lora, LoraSettings(rank=4, alpha=6), LAYERS)
    alpha = "diffusion_model.blocks.0.self_attn.q.alpha"
    for change, message in (
        ({alpha: None}, "1 missing"),
        ({alpha: torch.tensor(5.0)}, r"alphas \[5.0, 6.0\]"),
        ({"diffusion_model.blocks.0.self_attn.q.lora_A.weight": None}, "1 missing"),
        ({"diffusion_model.blocks.9.self_attn.q.lora_A.weight": torch.zeros(4, 32)}, "1 unexpected"),
    ):
        changed = {name: tensor for name, tensor in (written | change).items() if tensor is not None}
        with pytest.raises(InputError, match=message):
            from_comfyui(changed, LAYERS, "file")


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.safetensors").write_bytes(b"not weights")
    for name in ("p.safetensors", "absent.safetensors"):
        with pytest.raises(InputError, match=rf"{name} (is not a readable|does not exist|cannot be read)"):
            read_source(tmp_path / name, axes=["shutter"])
    with pytest.raises(InputError, match="no tensor named like"):
        read_published({"x": torch.zeros(1)}, published_axes(["shutter"]), source="file")


def test_strictness_names_every_kind_of_fault() -> None:
    expected = {"a": (1, 2), "b": (3,), "c": ()}
    received = {"a": torch.zeros(2, 1), "c": torch.zeros(()), "d": torch.zeros(1)}
    with pytest.raises(InputError) as caught:
        check_exact("file", expected, received)
    text = str(caught.value)
    assert "1 missing (b)" in text and "1 unexpected (d)" in text and "a [2, 1] instead of [1, 2]" in text and "\n" not in text
    check_exact("file", {"c": ()}, {"c": torch.zeros(())})


@given(st.floats(-3, 3))
def test_published_laws_are_those_of_the_design(control: float) -> None:
    shutter, temperature = published_axes(["shutter", "temperature"])
    assert shutter.law.value(control) == pytest.approx(0.020 * 5**-control)
    assert shutter.law.control(0.020 * 5**-control) == pytest.approx(control, abs=1e-9)
    mired = 275 - 225 * control
    if mired > 1:
        assert temperature.law.value(control) == pytest.approx(1e6 / mired)
        assert temperature.control(1e6 / mired) == pytest.approx(control, abs=1e-6)
    else:
        with pytest.raises(InputError, match="no light has"):
            assert mired > 0 or temperature.law.value(control)
            raise InputError("no light has")


def test_units_are_parsed_under_the_law_of_the_adapter() -> None:
    default, (published,) = axis_control("shutter"), published_axes(["shutter"])
    assert default.control("1/80") == pytest.approx(0) and published.control("20ms") == pytest.approx(0)
    assert default.control("1/16") == pytest.approx(1) and published.control("100ms") == pytest.approx(-1)
    assert default.control(1 / 400) == pytest.approx(-1)
    assert default.format(1.0) == "1/16"
    (aperture,) = published_axes(["aperture"])
    assert aperture.format(0.5) == "c = 0.5"
    with pytest.raises(InputError, match="states no unit law"):
        aperture.control("f/2")
    with pytest.raises(InputError, match="no published checkpoint controls 'zoom'"):
        published_axes(["zoom"])
    with pytest.raises(InputError, match=r"axis 'shuter' is unknown \(did you mean 'shutter'\?\)"):
        axis_control("shuter")
    with pytest.raises(InputError, match="not a physical value"):
        default.control(-0.5)


@given(st.integers(3, 60))
def test_the_deepest_third_is_the_last_third(layers: int) -> None:
    blocks = resolve_blocks("deepest_third", layers)
    assert len(blocks) == layers // 3 and blocks[-1] == layers - 1
    assert resolve_blocks("all", layers) == tuple(range(layers))


def test_block_choices() -> None:
    assert resolve_blocks("deepest_third", 40) == tuple(range(27, 40))
    assert resolve_blocks([5, 1], 7) == (1, 5)
    for wrong in ([], [1, 1], [7], [-1], "half"):
        with pytest.raises(InputError):
            resolve_blocks(wrong, 7)
    with pytest.raises(InputError, match="has no deepest third"):
        resolve_blocks("deepest_third", 2)


def test_configurations_refuse_nonsense() -> None:
    axis = axis_control("shutter")
    for axes, blocks in (((), (1,)), ((axis, axis), (1,)), ((axis,), ()), ((axis,), (2, 1)), ((axis,), (-1, 0))):
        with pytest.raises(ValueError):
            ControlConfig(axes=axes, blocks=blocks)
    with pytest.raises(ValueError):
        AdapterConfig(control=None, lora=None)


def test_the_methods_code_is_told_where_the_control_is_or_the_file_is_refused(tmp_path: Path) -> None:
    last = convert(made(tmp_path / "last", blocks=(2, 3)), tmp_path / "last.safetensors", "published")
    assert last.settings[0] == "[model]"
    lines = tomllib.loads("\n".join(last.settings))["model"]
    assert (lines["fps_condition_blocks"], lines["fps_lora_alpha"], lines["fps_adapter_rank"]) == (2, 7.0, 5)
    assert any("decoupled mode" in words and "27 to 39" in words for words in last.left_out)
    with pytest.raises(InputError, match=r"last blocks of a backbone, and this one's is in \[0, 2\]"):
        convert(made(tmp_path / "odd", blocks=(0, 2)), tmp_path / "odd.safetensors", "published")
    assert not (tmp_path / "odd.safetensors").exists()
    assert condition_blocks(range(27, 40), 40) == condition_blocks(range(20, 30), 30) == "deepest_third"
    assert condition_blocks(range(30, 40), 40) == 10


def made(folder: Path, blocks: tuple[int, ...]) -> Source:
    adapter = adapted(tiny_config("shutter", blocks=blocks).model_copy(update={"lora": LoraSettings(rank=4, alpha=4.0)}))
    save_adapter(folder, {"transformer": adapter}, backbone_id="tiny", step=1)
    return read_source(folder)


def test_a_published_file_takes_its_alpha_from_the_toml_beside_it_or_from_whoever_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "theirs.safetensors"
    convert(made(tmp_path / "a", blocks=(2, 3)), file, "published")
    save_file(load_file(file), file)  # theirs say nothing of themselves
    with pytest.raises(InputError, match="give --alpha or its TOML"):
        read_source(file, axes=["shutter"])
    assert read_source(file, axes=["shutter"], alpha=7.0).config.control.alpha == 7.0
    (tmp_path / "train.toml").write_text("[model]\nfps_lora_alpha = 9.0\n")
    assert read_source(file, axes=["shutter"]).config.control.alpha == 9.0
