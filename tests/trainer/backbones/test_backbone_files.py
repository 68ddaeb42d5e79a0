"""Pickled, cut, incomplete or hostile backbones are refused in one line, and no code of theirs runs."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel
from safetensors.torch import load_file, save_file

from scenes.errors import InputError
from trainer.backbones.load import fingerprint, load_backbone, load_component
from trainer.backbones.weightless import weightless_pipeline
from trainer.weights.key_names import backbone_names, inverse

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny-random backbone, to be damaged."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "backbone"))


class Hostile:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, ...]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("transformer", "diffusion_pytorch_model.bin"),
        ("vae", "diffusion_pytorch_model.bin"),
        ("text_encoder", "pytorch_model.bin"),
    ],
)
def test_pickled_weights_are_refused_unread(folder: Path, tmp_path: Path, part: str, name: str) -> None:
    for path in (folder / part).glob("*.safetensors"):
        path.unlink()
    torch.save(Hostile(tmp_path / "ran"), folder / part / name)
    with pytest.raises(InputError, match=rf"'{part}' of backbone .* in {name}, a pickle"):
        load_backbone(str(folder))
    assert not (tmp_path / "ran").exists()


def edit(path: Path, **entries: object) -> None:
    """Change entries of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def lose_a_tensor(folder: Path) -> None:
    """Leave a tensor out of the transformer."""
    weights = load_file(folder / "transformer" / WEIGHTS)
    del weights["blocks.1.attn1.to_q.weight"]
    save_file(weights, folder / "transformer" / WEIGHTS, metadata={"format": "pt"})


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a cut transformer": lambda f: os.truncate(f / "transformer" / WEIGHTS, 100_000),
    "a cut autoencoder": lambda f: os.truncate(f / "vae" / WEIGHTS, 10),
    "an empty text encoder": lambda f: os.truncate(f / "text_encoder" / "model.safetensors", 0),
    "a header of exabytes": lambda f: (f / "vae" / WEIGHTS).write_bytes(struct.pack("<Q", 2**60)),
    "a tensor that is missing": lose_a_tensor,
    "no weights": lambda f: (f / "vae" / WEIGHTS).unlink(),
    "a link that leads nowhere": lambda f: [(f / "vae" / WEIGHTS).unlink(), (f / "vae" / WEIGHTS).symlink_to("absent")],
    "a link to a device": lambda f: [(f / "vae" / WEIGHTS).unlink(), (f / "vae" / WEIGHTS).symlink_to("/dev/zero")],
    "a billion blocks": lambda f: edit(f / "transformer" / "config.json", num_layers=10**9),
    "blocks in words": lambda f: edit(f / "transformer" / "config.json", num_layers="six"),
    "more heads than weights": lambda f: edit(f / "transformer" / "config.json", num_attention_heads=10**7),
    "another feed-forward": lambda f: edit(f / "transformer" / "config.json", ffn_dim=17),
    "an unknown entry's type": lambda f: edit(f / "transformer" / "config.json", patch_size="large"),
    "a config that is no JSON": lambda f: (f / "vae" / "config.json").write_text("{"),
    "a config of brackets": lambda f: (f / "vae" / "config.json").write_text("[" * 100_000),
    "a config that is a list": lambda f: (f / "transformer" / "config.json").write_text("[]"),
    "an autoencoder of another width": lambda f: edit(f / "vae" / "config.json", base_dim=17),
    "an autoencoder without layers": lambda f: edit(f / "vae" / "config.json", dim_mult=None),
    "a vocabulary of millions": lambda f: edit(f / "text_encoder" / "config.json", vocab_size=10**7),
    "a component from elsewhere": lambda f: edit(f / "model_index.json", vae=["os", "system"]),
    "a component of a stranger's code": lambda f: edit(f / "model_index.json", vae=["my_module", "Vae"]),
    "a class that is none": lambda f: edit(f / "model_index.json", vae=["diffusers", "NoSuchClass"]),
    "an index that is a list": lambda f: (f / "model_index.json").write_text("[]"),
    "an index of brackets": lambda f: (f / "model_index.json").write_text("[" * 100_000),
    "a scheduler that is no JSON": lambda f: (f / "scheduler" / "scheduler_config.json").write_text("junk"),
    "a tokenizer that is no JSON": lambda f: (f / "tokenizer" / "tokenizer.json").write_text("junk"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_malformed_backbones_are_one_line(folder: Path, damage: str) -> None:
    DAMAGES[damage](folder)
    with pytest.raises(InputError) as caught:
        load_backbone(str(folder))
    assert str(caught.value).isprintable() and "backbone" in str(caught.value)


@pytest.mark.parametrize("part", ["transformer", "text_encoder", "vae"])
def test_a_dry_run_allocates_nothing_absurd_either(folder: Path, part: str) -> None:
    key = "num_res_blocks" if part == "vae" else "num_layers"
    edit(folder / part / "config.json", **{key: 10**9})
    for load in (weightless_pipeline, load_backbone):
        with pytest.raises(InputError, match=f"'{part}' of backbone .* 1000000000"):
            load(str(folder))


def test_single_components_are_checked_alike(folder: Path) -> None:
    load_component(AutoencoderKLWan, str(folder), "vae", dtype=torch.float32)
    (folder / "vae" / WEIGHTS).rename(folder / "vae" / "diffusion_pytorch_model.bin")
    with pytest.raises(InputError, match="a pickle"):
        load_component(AutoencoderKLWan, str(folder), "vae", dtype=torch.float32)


def test_a_single_file_is_answered_with_the_line_that_converts_it(folder: Path, tmp_path: Path) -> None:
    """The line's own calls, on a transformer under the original names, give the same backbone again."""
    transformer = WanTransformer3DModel.from_pretrained(folder, subfolder="transformer")
    names = inverse(backbone_names(transformer.config.num_layers))
    file = tmp_path / "wan.safetensors"
    save_file({names[name]: tensor for name, tensor in transformer.state_dict().items()}, file)
    with pytest.raises(InputError, match=r"single file.*T\.from_single_file\(.*save_pretrained\(\"FOLDER\"\)"):
        load_backbone(str(file))
    read = WanTransformer3DModel.from_single_file(str(file), config=str(folder), subfolder="transformer")
    WanPipeline.from_pretrained(folder, transformer=read).save_pretrained(tmp_path / "converted")
    assert fingerprint(load_backbone(str(tmp_path / "converted")).transformer) == fingerprint(transformer)


def test_the_original_layout_is_answered_with_the_same_model_for_diffusers(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "WanModel", "dim": 5120, "model_type": "t2v"}))
    with pytest.raises(InputError, match=r"layout of the original Wan code; give Wan-AI/Wan2\.1-T2V-14B-Diffusers"):
        load_backbone(str(tmp_path))
