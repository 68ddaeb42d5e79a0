"""Backbones: the true configurations without weights, the tiny one with, and what is said where one cannot be had."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from trainer_support import predict, scramble, tiny_config, tiny_inputs, tiny_transformer

from scenes.errors import InputError
from trainer.backbones.load import experts, fingerprint, load_backbone
from trainer.backbones.locate import locate_backbone
from trainer.backbones.wan_configs import WAN_CONFIGS, WanConfig, meta_vae, random_transformer
from trainer.control import AdapterConfig, ControlConfig, LoraSettings, Mode, attach, axis_control, resolve_blocks
from trainer.control.lora import lora_modules
from trainer.formats.published import control_shapes
from trainer.pipelines.controlled_wan import check_size
from trainer.weights.key_names import backbone_names

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds a tiny backbone."""
    folder = tmp_path_factory.mktemp("cache")
    load_backbone("tiny-random", cache=folder)
    return folder


def full_adapter(num_layers: int) -> AdapterConfig:
    """Return the reference configuration of DESIGN section 4."""
    control = ControlConfig(axes=(axis_control("shutter"),), blocks=resolve_blocks("deepest_third", num_layers))
    return AdapterConfig(control=control, lora=LoraSettings())


def expected_parameters(config: WanConfig) -> int:
    """Count a Wan transformer's parameters by hand, from the paper's description of a block."""
    d, f, patch = config.width, config.ffn_dim, config.channels * 4
    block = 8 * (d * d + d) + 4 * d + (d * f + f + f * d + d) + 2 * d + 6 * d
    text, time = 4096 * d + d + d * d + d, 256 * d + d + d * d + d
    return config.num_layers * block + text + time + (6 * d * d + 6 * d) + (patch * d + d) + (d * patch + patch) + 2 * d


@pytest.mark.parametrize("name", WAN_CONFIGS)
def test_true_configurations_on_the_meta_device(name: str) -> None:
    config = WAN_CONFIGS[name]
    transformer = random_transformer(config)
    shapes = {key: tuple(tensor.shape) for key, tensor in transformer.state_dict().items()}
    assert set(shapes) == set(backbone_names(config.num_layers).values())
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == expected_parameters(config)
    assert shapes["blocks.0.ffn.net.0.proj.weight"] == (config.ffn_dim, config.width)
    assert shapes["patch_embedding.weight"] == (config.width, config.channels, 1, 2, 2)
    adapter_config = full_adapter(config.num_layers)
    adapter = attach(transformer, adapter_config)
    control = {key: tuple(parameter.shape) for key, parameter in adapter.control_parameters().items()}
    assert control == control_shapes(adapter_config.control, config.width)
    lora = adapter.lora_parameters()
    assert set(lora) == {f"{m}.{part}.weight" for m in lora_modules(config.num_layers) for part in ("lora_A", "lora_B")}
    for key, parameter in lora.items():
        rows, columns = shapes[key.rsplit(".", 2)[0] + ".weight"]
        assert tuple(parameter.shape) == ((32, columns) if ".lora_A." in key else (rows, 32))
    assert all(parameter.device.type == "meta" for parameter in transformer.parameters())
    assert len(adapter.processors) == config.num_layers // 3


@pytest.mark.parametrize(("name", "billions"), [("wan2.1-t2v-1.3b", 1.42), ("wan2.1-t2v-14b", 14.3), ("wan2.2-ti2v-5b", 5.0)])
def test_true_configurations_have_their_size(name: str, billions: float) -> None:
    assert expected_parameters(WAN_CONFIGS[name]) / 1e9 == pytest.approx(billions, rel=0.01)


@pytest.mark.parametrize(("name", "spatial"), [("wan2.1-t2v-1.3b", 8), ("wan2.2-ti2v-5b", 16)])
def test_true_autoencoders(name: str, spatial: int) -> None:
    vae = meta_vae(WAN_CONFIGS[name])
    assert vae.config.z_dim == WAN_CONFIGS[name].channels and vae.config.scale_factor_spatial == spatial


def test_the_embedding_takes_one_token_of_a_wide_model_and_several_of_a_narrow_one() -> None:
    for heads, tokens in ((8, 1), (2, 4)):
        transformer = tiny_transformer(heads=heads, head_dim=32)
        control = ControlConfig(axes=(axis_control("shutter"),), blocks=(3,))
        adapter = scramble(attach(transformer, AdapterConfig(control=control, lora=None)))
        assert adapter.embedding.prefix == tokens
        embedding = adapter.embedding.lin2(torch.nn.functional.silu(adapter.embedding.lin1(torch.tensor([[0.3]]))))
        assert torch.equal(adapter.embedding(torch.tensor([[0.3]])).flatten(1)[:, :256], embedding)


def test_tiny_random_is_an_ordinary_pipeline(cache: Path) -> None:
    pipe = load_backbone("tiny-random", cache=cache)
    kinds = {name: type(part).__name__ for name, part in pipe.components.items() if part is not None}
    assert kinds["transformer"] == "WanTransformer3DModel" and kinds["vae"] == "AutoencoderKLWan"
    assert kinds["text_encoder"] == "UMT5EncoderModel" and kinds["scheduler"] == "UniPCMultistepScheduler"
    assert list(experts(pipe)) == ["transformer"]
    pipe.set_progress_bar_config(disable=True)
    frames = pipe("a red ball", height=16, width=32, num_frames=5, num_inference_steps=2, max_sequence_length=16).frames
    assert frames.shape == (1, 5, 16, 32, 3) and np.isfinite(frames).all() and frames.std() > 0


def test_the_tokenizer_is_a_real_one(cache: Path) -> None:
    tokenizer = load_backbone("tiny-random", cache=cache).tokenizer
    for text in ("a red ball rolls past", "Ünïcode 日本 and 3.5%"):
        ids = tokenizer(text).input_ids
        assert ids[-1] == tokenizer.eos_token_id and tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert len(tokenizer("a red ball").input_ids) == 4


def test_a_seed_gives_one_backbone(cache: Path, tmp_path: Path) -> None:
    first = load_backbone("tiny-random", cache=cache)
    again = load_backbone("tiny-random:0", cache=tmp_path)
    other = load_backbone("tiny-random:1", cache=tmp_path)
    assert fingerprint(first.transformer) == fingerprint(again.transformer) != fingerprint(other.transformer)
    assert all(torch.equal(p, q) for p, q in zip(first.vae.parameters(), again.vae.parameters(), strict=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny-random-1-0", "tiny-random-1-1"]


def test_a_cut_true_configuration_runs_with_an_adapter() -> None:
    config = WanConfig(hub_id="none", num_attention_heads=2, ffn_dim=64, num_layers=40, channels=4)
    transformer = random_transformer(config, device="cpu", num_layers=4).eval()
    assert transformer.config.num_layers == 4 and transformer.dtype == torch.float32
    adapter = scramble(attach(transformer, tiny_config()), scale=0.05)
    inputs = tiny_inputs() | {"encoder_hidden_states": torch.randn(2, 7, 4096)}
    with torch.no_grad():
        outputs = {}
        for mode in Mode:
            adapter.set_mode(mode)
            outputs[mode] = predict(transformer, inputs, [[0.5, -0.5]])
    assert all(output.isfinite().all() for output in outputs.values())
    assert len({output.sum().item() for output in outputs.values()}) == len(Mode)


def test_sizes_that_do_not_fit_are_refused(cache: Path) -> None:
    pipe = load_backbone("tiny-random", cache=cache)
    check_size(pipe, height=16, width=48, num_frames=1)
    check_size(pipe, height=512, width=512, num_frames=9)
    for size, message in (
        ({"height": 24, "width": 48, "num_frames": 5}, "size 48x24 does not fit this backbone; width must be a multiple of 16"),
        ({"height": 0, "width": 16, "num_frames": 5}, "size 16x0"),
        ({"height": 16, "width": 16, "num_frames": 8}, r"8 frames do not fit this backbone; give 4n \+ 1, such as 1, 5 or 9"),
        ({"height": 16, "width": 16, "num_frames": 0}, "0 frames"),
    ):
        with pytest.raises(InputError, match=message):
            check_size(pipe, **size)


def test_folders_that_are_no_backbones_are_refused(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"it has no model_index.json"):
        locate_backbone(str(tmp_path))
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "WanImageToVideoPipeline"}))
    with pytest.raises(InputError, match=r"is a WanImageToVideoPipeline; control adapters need a text-to-video WanPipeline"):
        locate_backbone(str(tmp_path))
    for text in ("{", "[]"):
        (tmp_path / "model_index.json").write_text(text)
        with pytest.raises(InputError, match=r"model_index\.json cannot be read"):
            locate_backbone(str(tmp_path))
    whole = Path(locate_backbone("tiny-random", cache=cache))
    (tmp_path / "model_index.json").write_bytes((whole / "model_index.json").read_bytes())
    with pytest.raises(InputError, match=r"'transformer' of backbone .* has no config\.json") as caught:
        load_backbone(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_names_that_are_nothing_are_refused() -> None:
    for name in ("./absent", "/no/such/folder", "wan2.1", "tiny-randon"):
        with pytest.raises(InputError, match="is neither a folder nor a hub id"):
            locate_backbone(name)
    with pytest.raises(InputError, match="did you mean 'tiny-random'"):
        locate_backbone("tiny-randon")


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=600
    )


LOCATE = """
from scenes.errors import InputError
from trainer.backbones.locate import locate_backbone
try:
    locate_backbone("Wan-AI/Wan2.1-T2V-1.3B-Diffusers")
except InputError as error:
    print(error)
"""


@pytest.mark.parametrize("environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_an_unreachable_hub_is_said_in_one_line(environment: dict[str, str], tmp_path: Path) -> None:
    without_waits = "import time; time.sleep = lambda _: None\n"  # the hub's client waits between its tries
    done = run(without_waits + LOCATE, HF_HOME=str(tmp_path), **environment)
    assert done.returncode == 0, done.stderr
    assert "is not in the local hub cache and the hub cannot be reached" in done.stdout and done.stdout.count("\n") == 1


def test_what_is_not_installed_is_said_in_one_line() -> None:
    code = """
import sys
from importlib.abc import MetaPathFinder
class Hidden(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "peft"):
            raise ModuleNotFoundError(name)
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name in ("torch", "peft") else real(name)
sys.meta_path.insert(0, Hidden())
from scenes.errors import InputError
from trainer.config.requirements import require_training_stack
try:
    require_training_stack()
except InputError as error:
    print(error)
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (
        "torch, peft not installed; training and generation need the extra 'train': pip install 'stopdown[train]'"
    )
    assert run("from trainer.config.requirements import require_training_stack as r; r()").returncode == 0


def test_neither_laws_nor_requirements_need_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import trainer.config.requirements, trainer.backbones.locate"
    assert run(code).returncode == 0
