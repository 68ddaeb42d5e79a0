"""`--lora`, `--scheduler`, `--flow-shift` and `--offload group`: what they say is what the pipeline does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from generation_support import SMALL, output, run, save_random, small_config
from safetensors.torch import load_file, save_file
from test_lora_calls import latents
from trainer_support import scramble

from scenes.errors import InputError
from trainer.adapters.folder import LORA_FILE, save_adapter
from trainer.backbones.load import load_backbone
from trainer.commands.generate import command
from trainer.control import AdapterConfig, LoraSettings, attach
from trainer.generation.load_pipeline import place
from trainer.pipelines.controlled_wan import ControlledWan
from trainer.pipelines.extra_loras import ExtraLora, parse_loras
from trainer.pipelines.schedulers import SCHEDULERS


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny backbone, an adapter, and another LoRA."""
    folder = tmp_path_factory.mktemp("extra")
    pipe = load_backbone("tiny-random", cache=folder / "stopdown")
    save_random(pipe, folder / "ours", small_config("shutter"))
    other = scramble(attach(pipe.transformer, AdapterConfig(control=None, lora=LoraSettings(rank=3, alpha=3))), seed=9)
    save_adapter(folder / "theirs", {"transformer": other}, backbone_id="tiny-random", step=1)
    other.detach()
    return folder


@pytest.fixture
def pipe(home: Path) -> ControlledWan:
    """A fresh pipeline with an adapter."""
    made = ControlledWan.from_pretrained("tiny-random", home / "ours", cache=home / "stopdown")
    made.set_progress_bar_config(disable=True)
    return made


def test_an_extra_lora_is_what_diffusers_loads(pipe: ControlledWan, home: Path) -> None:
    alone = latents(pipe, shutter="1/20")
    pipe.load_lora_weights(home / "theirs" / LORA_FILE, adapter_name="theirs")
    whole = latents(pipe, shutter="1/20")
    pipe.set_adapters("theirs", 0.4)
    part = latents(pipe, shutter="1/20")
    pipe.unload_lora_weights()
    for weight, expected in ((1.0, whole), (0.4, part), (0.0, alone)):
        assert pipe.add_lora(home / "theirs" / LORA_FILE, weight) == ()
        torch.testing.assert_close(latents(pipe, shutter="1/20"), expected, atol=1e-5, rtol=1e-4)
        pipe.unload_lora_weights()
    assert torch.equal(latents(pipe, shutter="1/20"), alone) and not torch.allclose(whole, alone, atol=1e-3)
    with pytest.raises(InputError, match="is for 'transformer_2', which this backbone lacks"):
        pipe.add_lora(home / "theirs", expert="transformer_2")
    with pytest.raises(InputError, match="weight nan"):
        pipe.add_lora(home / "theirs", float("nan"))


def test_group_offloading_changes_nothing(pipe: ControlledWan, home: Path) -> None:
    """On the CPU, where weights move from main memory to main memory."""
    pipe.add_lora(home / "theirs", 0.5)
    values = ({"shutter": "1/20"}, {"shutter": "1/300", "strength": 0.5}, {"strength": 0.0}, {"mode": "joint"})
    before = [latents(pipe, **value) for value in values]
    place(pipe, "cpu", "group")
    assert all(torch.equal(latents(pipe, **value), own) for value, own in zip(values, before, strict=True))


def test_schedulers_sample_the_flow(pipe: ControlledWan) -> None:
    own, kind = latents(pipe, shutter="1/20", num_inference_steps=4), type(pipe.scheduler)
    pipe.set_scheduler()
    assert torch.equal(latents(pipe, shutter="1/20", num_inference_steps=4), own)
    pipe.set_scheduler(flow_shift=7.0)
    assert type(pipe.scheduler) is kind and pipe.scheduler.config.flow_shift == 7.0
    assert not torch.allclose(latents(pipe, shutter="1/20", num_inference_steps=4), own)
    finest = []
    for name, (cls, key) in SCHEDULERS.items():
        pipe.set_scheduler(name, flow_shift=3.0)
        assert type(pipe.scheduler) is cls and pipe.scheduler.config[key] == 3.0
        made = latents(pipe, shutter="1/20", num_inference_steps=12)
        assert torch.isfinite(made).all()
        if name != "lcm":  # which draws noise anew at every step
            finest.append(made)
        pipe.scheduler.set_timesteps(4)
        assert pipe.scheduler.sigmas[1] > 0.75  # shifted: more than 1 - 1/4
    for made in finest[1:]:  # solvers of one equation come to one end
        assert (made - finest[0]).abs().mean() < 0.1 * finest[0].abs().mean()
    pipe.set_scheduler("euler")
    assert isinstance(pipe.scheduler, FlowMatchEulerDiscreteScheduler) and pipe.scheduler.config.shift == 3.0
    pipe.set_scheduler("unipc")
    assert isinstance(pipe.scheduler, UniPCMultistepScheduler) and pipe.scheduler.config.flow_shift == 3.0


def test_words_of_lora(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.safetensors", "b:2"):
        (tmp_path / name).touch()
    written = ["a.safetensors", "a.safetensors:0.5", "b:2", "b:2:-1", "transformer_2=a.safetensors:2"]
    a, b = Path("a.safetensors"), Path("b:2")
    assert parse_loras(written) == (
        ExtraLora(path=a),
        ExtraLora(path=a, weight=0.5),
        ExtraLora(path=b),
        ExtraLora(path=b, weight=-1.0),
        ExtraLora(path=a, weight=2.0, expert="transformer_2"),
    )
    for word, message in (
        ("c", "c does not exist"),
        ("a.safetensors:nan", "weight nan"),
        ("a.safetensors:x", "does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            parse_loras([word])


def test_the_command_uses_and_records_them(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    words = ["--adapter", home / "ours", "--prompt", "a red ball", "--shutter", "1/50", "--device", "cpu", *SMALL]
    more = ["--lora", f"{home / 'theirs'}:0.5", "--scheduler", "euler", "--flow-shift", "4"]
    output(command, *words, "--out", tmp_path / "plain")
    output(command, *words, *more, "--out", tmp_path / "more")
    recipes = [json.loads(next((tmp_path / name).glob("a-red*.json")).read_text())["recipe"] for name in ("plain", "more")]
    assert "loras" not in recipes[0] and recipes[1]["loras"][0]["weight"] == 0.5
    assert recipes[1]["scheduler"]["class"] == "FlowMatchEulerDiscreteScheduler" and recipes[1]["scheduler"]["shift"] == 4.0
    wide = {
        name: torch.zeros(3, 999) if "lora_A" in name else own for name, own in load_file(home / "theirs" / LORA_FILE).items()
    }
    save_file(wide, tmp_path / "wide.safetensors")
    for bad, message in (
        (["--scheduler", "ddim"], "scheduler 'ddim' is unknown"),
        (["--flow-shift", "0"], "flow shift 0 cannot be"),
        (["--flow-shift", "nan"], "flow shift nan cannot be"),
        (["--lora", "absent"], "absent does not exist"),
        (["--lora", f"{tmp_path / 'wide.safetensors'}"], "is for another backbone"),
        (["--lora", f"transformer_2={home / 'theirs'}"], "this backbone has no 'transformer_2'"),
    ):
        result = run(command, *words, *bad, "--out", tmp_path / "bad", "--dry-run")
        assert isinstance(result.exception, InputError) and message in str(result.exception), (bad, result.exception)
    assert not (tmp_path / "bad").exists()
