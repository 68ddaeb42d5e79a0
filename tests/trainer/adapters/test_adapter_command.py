"""`stopdown adapter`: what it says of an adapter, conversions both ways, the LoRA folded into the backbone.

Shapes: B batch, A axes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline
from generation_support import output, run, save_random, small_config
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from scenes.errors import InputError
from trainer.adapters.conversion.restate import preset_axes
from trainer.adapters.conversion.sources import read_source
from trainer.adapters.folder import attach_saved
from trainer.adapters.saved import SavedAdapter
from trainer.backbones.load import fingerprint, load_backbone
from trainer.commands.adapter import app
from trainer.control import axis_control
from trainer.control.attach import CONTROLS
from trainer.control.laws import LogLaw
from trainer.formats.published import PUBLISHED_LAWS, published_axes
from trainer.pipelines.controlled_wan import ControlledWan

SMALL = {"height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 2, "max_sequence_length": 12}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with the tiny backbone in its cache and adapters of several kinds."""
    folder = tmp_path_factory.mktemp("adapter")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        load_backbone("tiny-random:1")
        pipe = load_backbone("tiny-random")
        save_random(pipe, folder / "two", small_config("shutter", "temperature"), step=7)
        save_random(pipe, folder / "one", small_config("shutter"))
        save_random(pipe, folder / "lora", small_config("shutter", control=False))
        save_random(pipe, folder / "control", small_config("shutter", lora=False))
        yield folder


def latents(pipe: WanPipeline, **options: object) -> torch.Tensor:
    """Return the latents of a call at a fixed seed."""
    pipe.set_progress_bar_config(disable=True)
    return pipe("a red ball", generator=torch.Generator().manual_seed(2), output_type="latent", **SMALL, **options).frames


def test_info_of_a_folder(home: Path) -> None:
    tree = json.loads(output(app, "info", home / "two", "--json"))
    assert tree["backbone"] == "tiny-random" and tree["step"] == 7 and tree["dataset_version"] == "a" * 64
    assert [axis["axis"] for axis in tree["axes"]] == ["shutter", "temperature"]
    assert tree["axes"][0] == {"axis": "shutter", "law": "1/80 x 5^c", "c = -1": "1/400", "c = 0": "1/80", "c = 1": "1/16"}
    assert tree["conditioned_blocks"] == [4, 5] and tree["default_mode"] == "decoupled"
    control, lora = (load_file(home / "two" / name) for name in tree["bytes"])
    assert tree["parameters"] == {
        "control": sum(tensor.numel() for tensor in control.values()),
        "lora": sum(tensor.numel() for tensor in lora.values()),
    }
    words = output(app, "info", home / "two")
    assert all(word in words for word in ("tiny-random", "1/400", "21125 K", "conditioned blocks", "4, 5", "lora rank"))


def test_info_of_files(home: Path, tmp_path: Path) -> None:
    for kind in ("published", "comfyui"):
        output(app, "convert", home / "one", tmp_path / f"{kind}.safetensors", "--to", kind)
        tree = json.loads(output(app, "info", tmp_path / f"{kind}.safetensors", "--json"))
        assert tree["format"] == kind and tree["lora_rank"] == 2
    strip_metadata(tmp_path / "published.safetensors")
    tree = json.loads(output(app, "info", tmp_path / "published.safetensors", "--json"))
    assert tree["axes"] == [] and tree["controls"].startswith("1 axes")
    lora = json.loads(output(app, "info", home / "lora" / "pytorch_lora_weights.safetensors", "--json"))
    assert lora["format"] == "diffusers" and lora["lora_alpha"] == 2.0


def strip_metadata(path: Path) -> None:
    """Leave a file as the method's own code writes it: tensors alone, but for the settings."""
    with safe_open(path, framework="pt") as file:
        settings = file.metadata()["config"]
    save_file(load_file(path), path, metadata={"config": settings})


def test_there_and_back(home: Path, tmp_path: Path) -> None:
    for name in ("two", "one", "control"):
        file, back = tmp_path / f"{name}.safetensors", tmp_path / name
        output(app, "convert", home / name, file, "--to", "published")
        output(app, "convert", file, back, "--to", "diffusers", "--backbone", "tiny-random")
        before, after = SavedAdapter.open(home / name).card, SavedAdapter.open(back).card
        assert after.config == before.config and after.backbone == before.backbone
        for weights in (home / name).glob("*.safetensors"):
            own, other = load_file(weights), load_file(back / weights.name)
            assert own.keys() == other.keys() and all(torch.equal(own[key], other[key]) for key in own)
    file, back = tmp_path / "lora.safetensors", tmp_path / "lora"
    output(app, "convert", home / "lora", file, "--to", "comfyui")
    output(app, "convert", file, back, "--to", "diffusers", "--backbone", "tiny-random")
    assert SavedAdapter.open(back).card.config == SavedAdapter.open(home / "lora").card.config
    piped = [ControlledWan.from_pretrained("tiny-random", folder) for folder in (home / "lora", back)]
    assert torch.equal(*(latents(one) for one in piped))


def test_what_a_format_cannot_carry_is_said(home: Path, tmp_path: Path) -> None:
    words = output(app, "convert", home / "two", tmp_path / "p.safetensors", "--to", "published")
    assert "shutter and its direction: c = -1 is 1/400, c = +1 is 1/16" in words
    assert "components are shutter, temperature, in this order" in words
    words = output(app, "convert", home / "two", tmp_path / "c.safetensors", "--to", "comfyui")
    assert "the control of shutter, temperature: stock ComfyUI applies the LoRA alone" in words


def test_the_published_preset_turns_the_scalar_round(home: Path, tmp_path: Path) -> None:
    """The same picture at the same exposure, whichever way the scalar runs."""
    file, back = tmp_path / "p.safetensors", tmp_path / "back"
    output(app, "convert", home / "one", file, "--to", "published", "--preset", "published")
    strip_metadata(file)  # as from the method's code: --axes names the axis, the law is the published one
    output(app, "convert", file, back, "--to", "diffusers", "--backbone", "tiny-random", "--axes", "shutter")
    assert SavedAdapter.open(back).card.config.control.axes == published_axes(["shutter"])
    own, turned = (ControlledWan.from_pretrained("tiny-random", folder) for folder in (home / "one", back))
    assert own.controls(1, {"shutter": "1/16"}) > 0 > turned.controls(1, {"shutter": "1/16"})
    for shutter in ("1/400", "1/50", "1/16"):
        torch.testing.assert_close(latents(own, shutter=shutter), latents(turned, shutter=shutter), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(latents(own, control=0.8), latents(turned, control=0.8), atol=1e-3)


def test_presets_are_the_published_numbers() -> None:
    shutter, temperature = preset_axes([axis_control("shutter"), axis_control("temperature")], "published")
    assert [shutter.law.value(c) for c in (-1, 0, 1)] == pytest.approx([0.1, 0.02, 0.004])
    assert [1e6 / temperature.law.value(c) for c in (-1, 0, 1)] == pytest.approx([500, 275, 50])
    assert preset_axes([shutter], "stopdown")[0].law == LogLaw(neutral=1 / 80, ratio=5.0)
    assert PUBLISHED_LAWS["shutter"] == shutter.law


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["convert", "two", "x.safetensors", "--to", "published", "--preset", "published"],
            "temperature has a law of kind 'log'",
        ),
        (
            ["convert", "two", "x.safetensors", "--to", "comfyui", "--preset", "published"],
            "preset 'published' restates a control",
        ),
        (["convert", "one", "x.safetensors", "--to", "published", "--preset", "official"], "preset 'official' is unknown"),
        (["convert", "one", "x.safetensors", "--to", "kohya"], "format 'kohya' is unknown; allowed are diffusers, comfyui"),
        (["convert", "one", "x.pt", "--to", "published"], "x.pt is no .safetensors file"),
        (["convert", "one", "x", "--to", "diffusers"], "is in the format 'diffusers' already"),
        (["convert", "one", "two", "--to", "published"], "two exists; give a new name"),
        (["convert", "control", "x.safetensors", "--to", "comfyui"], "has no LoRA"),
        (["convert", "lora", "x.safetensors", "--to", "published"], "holds a control adapter, this one has none"),
        (
            ["convert", "one", "x.safetensors", "--to", "published", "--expert", "transformer_2"],
            "does not adapt 'transformer_2'",
        ),
        (["convert", "none", "x.safetensors", "--to", "published"], "none does not exist"),
        (["merge", "control", "--out", "x"], "mode 'control_only' at strength 1 has no LoRA to merge"),
        (["merge", "one", "--out", "x", "--mode", "backbone_only"], "has no LoRA to merge"),
        (["merge", "one", "--out", "x", "--strength", "0"], "at strength 0 has no LoRA to merge"),
        (["merge", "one", "--out", "two"], "two exists"),
        (["merge", "one", "--out", "x", "--backbone", "tiny-random:1"], "is another one"),
        (["merge", "one", "--out", "x", "--dtype", "fp7"], "--dtype fp7 is unknown"),
        (["info", "none"], "none does not exist"),
    ],
)
def test_bad_input_is_one_line(home: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str) -> None:
    monkeypatch.chdir(home)
    before = sorted(home.rglob("*"))
    with pytest.raises(InputError, match=message) as caught:
        raise run(app, *words).exception or AssertionError("no error")
    assert "\n" not in str(caught.value) and sorted(home.rglob("*")) == before


def test_files_are_read_strictly(home: Path, tmp_path: Path) -> None:
    good = tmp_path / "good.safetensors"
    output(app, "convert", home / "one", good, "--to", "published")
    weights = load_file(good)
    bad = tmp_path / "bad.safetensors"
    name = "diffusion_model.blocks.4.fps_adapter.k_fps_up.weight"
    cases = {
        "unexpected": weights | {"diffusion_model.blocks.4.extra.weight": torch.zeros(1)},
        "missing": {key: tensor for key, tensor in weights.items() if key != name},
        "no known format": weights | {"text_encoder.weight": torch.zeros(1)},
    }
    for message, changed in cases.items():
        save_file(changed, bad)
        with pytest.raises(InputError, match=message):
            read_source(bad, axes=["shutter"])
    strip_metadata(good)
    with pytest.raises(InputError, match="does not say which axes it controls; name its 1 with --axes"):
        read_source(good)
    with pytest.raises(InputError, match="controls 1 axes, 2 were named"):
        read_source(good, axes=["shutter", "temperature"])
    bad.write_bytes(b"x" * 100)
    with pytest.raises(InputError, match="not a readable safetensors file"):
        read_source(bad)
    with pytest.raises(InputError, match="leave out --axes"):
        read_source(home / "lora" / "pytorch_lora_weights.safetensors", axes=["shutter"])


def test_a_folder_is_read_strictly(home: Path, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(home / "one", tmp_path / "cut"))
    weights = load_file(folder / "control_adapter.safetensors")
    weights.pop("blocks.5.value_up.weight")
    save_file(weights, folder / "control_adapter.safetensors")
    with pytest.raises(InputError, match=r"1 missing \(blocks.5.value_up.weight\)"):
        raise run(app, "info", folder).exception or AssertionError("no error")


@pytest.mark.parametrize(("mode", "strength"), [("decoupled", 1.0), ("joint", 1.0), ("joint", 0.5), ("lora_only", 1.0)])
def test_a_merged_backbone_gives_what_the_unmerged_one_gave(home: Path, tmp_path: Path, mode: str, strength: float) -> None:
    out = tmp_path / "merged"
    output(app, "merge", home / "two", "--out", out, "--mode", mode, "--strength", strength)
    before = ControlledWan.from_pretrained("tiny-random", home / "two")
    expected = latents(before, shutter="1/16", temperature="3000K", mode=mode, strength=strength)
    merged = load_backbone(str(out))
    if mode == "lora_only":
        assert not (out / "adapter").exists()
        given = latents(merged)
    else:
        card = SavedAdapter.open(out / "adapter").card
        assert card.config.lora is None and card.backbone.fingerprints["transformer"] == fingerprint(merged.transformer)
        assert card.recipe["merged"]["mode"] == mode and card.recipe["merged"]["strength"] == strength
        after = ControlledWan.from_pretrained(card.backbone.id, out / "adapter")
        given = latents(after, shutter="1/16", temperature="3000K", strength=strength)
        for backbone, adapter in (("tiny-random", out / "adapter"), (out, home / "two")):  # its LoRA would act twice
            with pytest.raises(InputError, match="is another one"):
                ControlledWan.from_pretrained(backbone, adapter)
    assert (given - expected).abs().max() < 1e-5
    bare = latents(load_backbone("tiny-random"))
    assert (given - bare).abs().max() > 1e-3
    readme = (out / "README.md").read_text()
    assert f"(mode `{mode}`, strength {strength:g})" in readme and "base_model: tiny-random" in readme


def test_a_merge_changes_the_projections_it_says_and_no_others(home: Path, tmp_path: Path) -> None:
    words = output(app, "merge", home / "one", "--out", tmp_path / "m", "--json")
    assert json.loads(words)["blocks"] == [4, 5] and json.loads(words)["projections"] == 20
    old = load_backbone("tiny-random").transformer.state_dict()
    new = load_backbone(str(tmp_path / "m")).transformer.state_dict()
    assert old.keys() == new.keys()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert len(changed) == 20 and all(name.startswith(("blocks.4.", "blocks.5.")) for name in changed)


def test_one_forward_pass_of_a_merged_transformer(home: Path, tmp_path: Path) -> None:
    """The prediction itself, at random inputs, without a scheduler that may hide or enlarge a difference."""
    output(app, "merge", home / "two", "--out", tmp_path / "m", "--mode", "joint")
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "hidden_states": torch.randn(2, 16, 2, 4, 4, generator=generator),
        "encoder_hidden_states": torch.randn(2, 7, 32, generator=generator),
        "timestep": torch.tensor([100.0, 900.0]),
        "attention_kwargs": {CONTROLS: torch.tensor([[0.5, -1.0], [1.0, 0.3]])},
    }
    predictions = []
    for backbone, folder, mode in (
        ("tiny-random", home / "two", "joint"),
        (tmp_path / "m", tmp_path / "m/adapter", "control_only"),
    ):
        transformer = load_backbone(str(backbone)).transformer
        adapters = attach_saved({"transformer": transformer}, SavedAdapter.open(folder))
        adapters["transformer"].set_mode(mode)
        with torch.no_grad():
            predictions.append(transformer(**inputs, return_dict=False)[0])
    assert (predictions[0] - predictions[1]).abs().max() < 1e-5
