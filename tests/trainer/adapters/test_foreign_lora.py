"""LoRA files of other programs: every layout says the same, in diffusers, beside an adapter, and as an adapter's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline
from safetensors.torch import save_file
from torch import Tensor
from trainer_support import adapted, predict, tiny_config, tiny_inputs, tiny_transformer

from scenes.errors import InputError
from trainer.adapters.conversion.convert_lora import convert_lora
from trainer.adapters.conversion.describe import describe
from trainer.adapters.conversion.sources import read_source
from trainer.adapters.folder import attach_saved
from trainer.adapters.saved import SavedAdapter
from trainer.formats.foreign_lora import check_fits, plain_weights, read_lora
from trainer.weights.key_names import PROJECTIONS

RANK, ALPHA, LAYERS = 4, 2.0, 4
ATTENTION = [name for name in PROJECTIONS if "attn" in name]


def matrices(modules: list[str], layers: int = LAYERS) -> dict[str, tuple[Tensor, Tensor]]:
    """Return random down and up projections by original module name, in the tiny transformer's sizes."""
    drawn, transformer = torch.Generator().manual_seed(3), tiny_transformer()
    found = {}
    for block in range(layers):
        for module in modules:
            layer = transformer.get_submodule(f"blocks.{block}.{PROJECTIONS[module]}")
            down = torch.randn(RANK, layer.in_features, generator=drawn) / 4
            found[f"blocks.{block}.{module}"] = (down, torch.randn(layer.out_features, RANK, generator=drawn) / 4)
    return found


def written(layout: str, path: Path, modules: list[str]) -> Path:
    """Write one LoRA (alpha 2, rank 4) as a program would."""
    tensors, alpha = {}, torch.tensor(ALPHA)
    for name, (down, up) in matrices(modules).items():
        block, rest = name.split(".")[1], name.split(".", 2)[2]
        ours = f"blocks.{block}.{PROJECTIONS[rest]}"
        flat = "lora_unet_" + name.replace(".", "_")
        tensors |= {
            "musubi": {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up, f"{flat}.alpha": alpha},
            "comfyui": {
                f"diffusion_model.{name}.lora_A.weight": down,
                f"diffusion_model.{name}.lora_B.weight": up,
                f"diffusion_model.{name}.alpha": alpha,
            },
            "lora_down": {
                f"diffusion_model.{name}.lora_down.weight": down,
                f"diffusion_model.{name}.lora_up.weight": up,
                f"diffusion_model.{name}.alpha": alpha,
            },
            "diffsynth": {f"{name}.lora_A.default.weight": down, f"{name}.lora_B.default.weight": up * ALPHA / RANK},
            "peft": {f"base_model.model.{ours}.lora_A.weight": down, f"base_model.model.{ours}.lora_B.weight": up},
            "diffusers": {f"transformer.{ours}.lora_A.weight": down, f"transformer.{ours}.lora_B.weight": up},
        }[layout]
    settings = {"r": RANK, "lora_alpha": ALPHA, "target_modules": ["to_q"], "peft_type": "LORA"}
    metadata = {"format": "pt"}
    if layout == "diffusers":
        metadata["lora_adapter_metadata"] = json.dumps({f"transformer.{name}": value for name, value in settings.items()})
    if layout == "peft":
        (path.parent / "adapter_config.json").write_text(json.dumps(settings))
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path, metadata=metadata)
    return path


LAYOUTS = ("musubi", "comfyui", "lora_down", "diffsynth", "peft", "diffusers")


@pytest.mark.parametrize("modules", [list(PROJECTIONS), ATTENTION, ["self_attn.q"]], ids=["all", "attention", "one"])
def test_every_layout_says_the_same(tmp_path: Path, modules: list[str]) -> None:
    """The change of each weight is up @ down times alpha / rank, whoever wrote it."""
    expected = {
        f"blocks.{name.split('.')[1]}.{PROJECTIONS[name.split('.', 2)[2]]}": (up @ down) * ALPHA / RANK
        for name, (down, up) in matrices(modules).items()
    }
    for layout in LAYOUTS:
        lora = read_lora(written(layout, tmp_path / f"{layout}.safetensors", modules))
        assert lora.modules.keys() == expected.keys() and lora.notes == ()
        weights = plain_weights(lora, 0.5)
        for name, change in expected.items():
            own = weights[f"{name}.lora_B.weight"] @ weights[f"{name}.lora_A.weight"]
            torch.testing.assert_close(own, 0.5 * change, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("layout", ["musubi", "comfyui"])
def test_it_gives_what_plain_diffusers_gives(tmp_path: Path, layout: str) -> None:
    path = written(layout, tmp_path / "x.safetensors", list(PROJECTIONS))
    plain, ours = tiny_transformer(), tiny_transformer()
    plain.load_lora_adapter(WanPipeline.lora_state_dict(path))
    lora = read_lora(path)
    check_fits(lora, ours)
    ours.load_lora_adapter(plain_weights(lora), prefix=None)
    with torch.no_grad():
        expected = predict(plain, tiny_inputs())
        torch.testing.assert_close(predict(ours, tiny_inputs()), expected, atol=1e-5, rtol=1e-4)
        assert not torch.allclose(expected, predict(tiny_transformer(), tiny_inputs()), atol=1e-3)


def test_ranks_and_biases_of_their_own(tmp_path: Path) -> None:
    """Distilled LoRAs have several ranks, differences of biases and of norms; each acts as ComfyUI lets it act."""
    base = tiny_transformer()
    layer = base.get_submodule("blocks.0.attn1.to_q")
    wide, narrow = torch.randn(5, layer.in_features) / 4, torch.randn(2, layer.in_features) / 4
    up_wide, up_narrow, bias = torch.randn(32, 5) / 4, torch.randn(32, 2) / 4, torch.randn(32)
    tensors = {
        "diffusion_model.blocks.0.self_attn.q.lora_down.weight": wide,
        "diffusion_model.blocks.0.self_attn.q.lora_up.weight": up_wide,
        "diffusion_model.blocks.0.self_attn.q.diff_b": bias,
        "diffusion_model.blocks.1.self_attn.q.lora_down.weight": narrow,
        "diffusion_model.blocks.1.self_attn.q.lora_up.weight": up_narrow,
        "diffusion_model.blocks.1.self_attn.norm_q.diff": torch.zeros(32),
    }
    save_file(tensors, tmp_path / "x.safetensors")
    lora = read_lora(tmp_path / "x.safetensors")
    assert lora.notes == ("1 differences of norms, which diffusers leaves out too",)
    changed, loaded = tiny_transformer(), tiny_transformer()
    with torch.no_grad():
        for block, change, shift in ((0, up_wide @ wide, bias), (1, up_narrow @ narrow, torch.zeros(32))):
            changed.get_submodule(f"blocks.{block}.attn1.to_q").weight += 0.7 * change
            changed.get_submodule(f"blocks.{block}.attn1.to_q").bias += 0.7 * shift
        loaded.load_lora_adapter(plain_weights(lora, 0.7), prefix=None)
        torch.testing.assert_close(predict(loaded, tiny_inputs()), predict(changed, tiny_inputs()), atol=1e-5, rtol=1e-4)


def one(name: str, tensor: Tensor | None = None, **others: Tensor) -> dict[str, Tensor]:
    """Return a file's tensors."""
    return {name: torch.zeros(4, 32) if tensor is None else tensor, **others}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (one("diffusion_model.blocks.0.self_attn.q.lora_A.weight"), "has no up projection"),
        (one("diffusion_model.blocks.0.cross_attn.k_img.lora_A.weight"), "names are unknown .*k_img"),
        (one("lora_te_text_model_encoder.lora_down.weight"), "names are unknown"),
        (one("diffusion_model.blocks.0.self_attn.q.diff"), "names are unknown"),
        (one("diffusion_model.blocks.0.self_attn.q.dora_scale"), "names are unknown"),
        (one("x\x1b[2J"), "names are unknown"),
        (one("diffusion_model.blocks.0.self_attn.q.lora_A.weight", torch.zeros(4, 32, dtype=torch.int8)), "is I8"),
        (one("diffusion_model.blocks.0.self_attn.q.lora_A.weight", torch.full((4, 32), float("nan"))), "not finite"),
        (
            one("blocks.0.self_attn.q.lora_A.weight", **{"blocks.0.self_attn.q.lora_B.weight": torch.zeros(32, 5)}),
            "do not fit each other",
        ),
        (
            one("blocks.0.self_attn.q.lora_A.weight", **{"transformer.blocks.0.attn1.to_q.lora_A.weight": torch.zeros(4, 32)}),
            "twice, under different names",
        ),
    ],
)
def test_what_is_no_lora_is_one_line(tmp_path: Path, tensors: dict[str, Tensor], message: str) -> None:
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=message) as caught:
        read_lora(tmp_path / "x.safetensors")
    assert str(caught.value).isprintable()


def test_a_lora_of_another_backbone_is_refused(tmp_path: Path) -> None:
    lora = read_lora(written("musubi", tmp_path / "x.safetensors", list(PROJECTIONS)))
    with pytest.raises(InputError, match="is for another backbone"):
        check_fits(lora, tiny_transformer(heads=8, head_dim=8))
    check_fits(lora, adapted(tiny_config()).transformer)


def test_info_says_what_a_lora_of_another_program_is(tmp_path: Path) -> None:
    tree = describe(written("musubi", tmp_path / "x.safetensors", ATTENTION))
    assert (tree["lora_rank"], tree["lora_alpha"]) == (RANK, ALPHA) and "--lora" in tree["format"]
    assert tree["projections"] == {PROJECTIONS[name]: LAYERS for name in ATTENTION}
    partly = written("comfyui", tmp_path / "y.safetensors", ATTENTION)
    assert "--lora" in describe(partly)["format"]
    with pytest.raises(InputError, match="stopdown generate --lora and adapter convert take it as it is"):
        read_source(partly)


def change(lora_file: Path) -> dict[str, Tensor]:
    """Return what a LoRA adds to each weight."""
    found = read_lora(lora_file).modules
    return {name: module.up @ module.down * module.alpha / module.down.shape[0] for name, module in found.items()}


@pytest.mark.parametrize("layout", ["musubi", "diffsynth", "peft", "diffusers"])
@pytest.mark.parametrize("modules", [ATTENTION, ["self_attn.q"]], ids=["attention", "one"])
def test_a_lora_of_some_projections_becomes_a_comfyui_file(tmp_path: Path, layout: str, modules: list[str]) -> None:
    source, target = written(layout, tmp_path / "x.safetensors", modules), tmp_path / "y.safetensors"
    done = convert_lora(source, target, "comfyui")
    expected, made = change(source), change(target)
    assert made.keys() == expected.keys() and done.tensors >= 2 * len(made)
    for name in expected:
        torch.testing.assert_close(made[name], expected[name])
    with pytest.raises(InputError, match="is in the format 'comfyui' already"):
        convert_lora(target, tmp_path / "z.safetensors", "comfyui")


@pytest.fixture(scope="module")
def small_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny transformer in it, as far as a conversion reads a backbone."""
    folder = tmp_path_factory.mktemp("backbone")
    tiny_transformer().save_pretrained(folder / "transformer")
    index = {"_class_name": "WanPipeline", "transformer": ["diffusers", "WanTransformer3DModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def test_a_lora_of_some_projections_becomes_an_adapters_folder(tmp_path: Path, small_backbone: Path) -> None:
    """Projections that it leaves alone are zero: a prediction is that of the LoRA as it is."""
    source = written("musubi", tmp_path / "x.safetensors", ATTENTION)
    done = convert_lora(source, tmp_path / "folder", "diffusers", backbone=str(small_backbone))
    assert done.notes == (f"{LAYERS * 2} of {LAYERS * 10} projections are zero: the LoRA leaves them alone",)
    converted, plain = tiny_transformer(), tiny_transformer()
    adapters = attach_saved({"transformer": converted}, SavedAdapter.open(tmp_path / "folder"))
    adapters["transformer"].set_mode("lora_only")
    plain.load_lora_adapter(plain_weights(read_lora(source)), prefix=None)
    with torch.no_grad():
        torch.testing.assert_close(predict(converted, tiny_inputs()), predict(plain, tiny_inputs()), atol=1e-5, rtol=1e-4)


def test_what_a_format_has_no_place_for_is_one_line(tmp_path: Path, small_backbone: Path) -> None:
    source = written("musubi", tmp_path / "x.safetensors", ATTENTION)
    up = torch.zeros(32, 4)
    outside = {"time_embedding.0.lora_A.weight": torch.zeros(4, 32), "time_embedding.0.lora_B.weight": up}
    biased = {
        f"blocks.0.self_attn.q.{part}": tensor
        for part, tensor in {"lora_A.weight": torch.zeros(4, 32), "lora_B.weight": up, "diff_b": torch.zeros(32)}.items()
    }
    for name, tensors in (("outside", outside), ("biased", biased)):
        save_file({key: tensor.clone() for key, tensor in tensors.items()}, tmp_path / f"{name}.safetensors")
        convert_lora(tmp_path / f"{name}.safetensors", tmp_path / f"{name}-comfyui.safetensors", "comfyui")
    before = sorted(tmp_path.iterdir())
    refused = [
        (source, {"to": "published"}, "the published format holds a control"),
        (source, {"to": "comfyui", "preset": "published"}, "restates a control"),
        (source, {"to": "diffusers"}, "does not name its backbone"),
        (tmp_path / "outside.safetensors", {"to": "diffusers", "backbone": str(small_backbone)}, "1 projections outside the"),
        (tmp_path / "biased.safetensors", {"to": "diffusers", "backbone": str(small_backbone)}, "1 biases"),
    ]
    for path, options, message in refused:
        with pytest.raises(InputError, match=message) as caught:
            convert_lora(path, tmp_path / "new.safetensors", **options)
        assert str(caught.value).isprintable()
    assert sorted(tmp_path.iterdir()) == before


def test_ranks_are_bounded_before_they_cost_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One module of a large rank would have every other one filled up to it."""
    tensors = {
        "blocks.0.self_attn.q.lora_A.weight": torch.zeros(64, 32),
        "blocks.0.self_attn.q.lora_B.weight": torch.zeros(32, 64),
    }
    for block in range(1, 9):
        tensors |= {f"blocks.{block}.self_attn.q.lora_A.weight": torch.zeros(1, 32)}
        tensors |= {f"blocks.{block}.self_attn.q.lora_B.weight": torch.zeros(32, 1)}
    save_file(tensors, tmp_path / "x.safetensors")
    lora = read_lora(tmp_path / "x.safetensors")
    assert len(plain_weights(lora)) == 2 * 9
    monkeypatch.setattr("trainer.formats.foreign_lora.PADDED_BYTES", 1000)
    with pytest.raises(InputError, match="in ranks 1 to 64; resize it to a smaller rank"):
        plain_weights(lora)
    huge = {
        "blocks.0.self_attn.q.lora_A.weight": torch.zeros(4097, 2),
        "blocks.0.self_attn.q.lora_B.weight": torch.zeros(2, 4097),
    }
    save_file(huge, tmp_path / "huge.safetensors")
    with pytest.raises(InputError, match="has rank 4097; at most 4096 is read"):
        read_lora(tmp_path / "huge.safetensors")
