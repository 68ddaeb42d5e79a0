"""Other people's LoRA calls on ControlledWan: the adapter acts after each as before it, or one line says why it cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline
from generation_support import save_random, small_config
from trainer_support import scramble

from scenes.errors import InputError
from trainer.adapters.folder import LORA_FILE, save_adapter
from trainer.backbones.load import load_backbone
from trainer.control import AdapterConfig, LoraSettings, attach
from trainer.pipelines.controlled_wan import ControlledWan

ONCE = {"height": 16, "width": 16, "num_frames": 5, "num_inference_steps": 1, "max_sequence_length": 8, "output_type": "latent"}
MODES = ("decoupled", "joint", "lora_only", "control_only")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny backbone, an adapter, one without LoRA, and another LoRA."""
    folder = tmp_path_factory.mktemp("calls")
    pipe = load_backbone("tiny-random", cache=folder)
    save_random(pipe, folder / "ours", small_config("shutter"))
    save_random(pipe, folder / "control", small_config("shutter", lora=False))
    other = scramble(attach(pipe.transformer, AdapterConfig(control=None, lora=LoraSettings(rank=3, alpha=3))), seed=9)
    save_adapter(folder / "theirs", {"transformer": other}, backbone_id="tiny-random", step=1)
    other.detach()
    return folder


def load(home: Path, name: str = "ours") -> ControlledWan:
    """Return a fresh pipeline with an adapter."""
    pipe = ControlledWan.from_pretrained("tiny-random", home / name, cache=home)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def latents(pipe: WanPipeline, **options: object) -> torch.Tensor:
    """Return the latents of a call."""
    return pipe("a red ball", generator=torch.Generator().manual_seed(0), guidance_scale=1.0, **(ONCE | options)).frames


def all_modes(pipe: ControlledWan) -> list[torch.Tensor]:
    """Return what each mode gives, and the bare backbone (with the LoRAs of others)."""
    return [latents(pipe, shutter="1/20", mode=mode) for mode in MODES] + [latents(pipe, strength=0.0)]


def alike(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    """Return whether two lists of latents are equal, bit for bit."""
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


def test_what_is_done_to_other_loras_leaves_ours_as_it_was(home: Path) -> None:
    pipe = load(home)
    alone = all_modes(pipe)
    pipe.load_lora_weights(home / "theirs" / LORA_FILE, adapter_name="theirs")
    beside = all_modes(pipe)
    assert not any(torch.equal(one, other) for one, other in zip(alone, beside, strict=True))
    plain = load_backbone("tiny-random", cache=home)
    plain.set_progress_bar_config(disable=True)
    plain.load_lora_weights(home / "theirs" / LORA_FILE)
    assert torch.equal(latents(plain), beside[-1])  # strength 0 is the backbone with the LoRAs of others
    steps: list[tuple[Callable[[], object], list[torch.Tensor]]] = [
        (lambda: pipe.disable_lora(), alone),
        (lambda: pipe.enable_lora(), beside),
        (lambda: pipe.set_adapters([]), alone),
        (lambda: pipe.set_adapters("theirs", 0.0), alone),
        (lambda: pipe.set_adapters(["theirs"], [1.0]), beside),
        (lambda: pipe.delete_adapters("theirs"), alone),
        (lambda: pipe.load_lora_weights(home / "theirs" / LORA_FILE), beside),
        (lambda: pipe.unload_lora_weights(), alone),
        (lambda: pipe.unload_lora_weights(), alone),
    ]
    for number, (call, expected) in enumerate(steps):
        call()
        assert alike(all_modes(pipe), expected), number
        assert not any(parameter.requires_grad for parameter in pipe.transformer.parameters())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda pipe: pipe.fuse_lora(), "fuse_lora would switch this adapter's own LoRA off"),
        (lambda pipe: pipe.set_adapters(["stopdown"]), "'stopdown' is the adapter's own LoRA"),
        (lambda pipe: pipe.delete_adapters("stopdown"), "'stopdown' is the adapter's own LoRA"),
        (lambda pipe: pipe.load_lora_weights({}, adapter_name="stopdown"), "'stopdown' is the adapter's own LoRA"),
        (lambda pipe: pipe.set_lora_device(["stopdown"], "cpu"), "'stopdown' is the adapter's own LoRA"),
        (lambda pipe: pipe.delete_adapters(["ours"]), "there is no LoRA 'ours' here; there is none"),
        (lambda pipe: pipe.set_adapters(["ours"]), "there is no LoRA 'ours' here; there is none"),
        (lambda pipe: pipe.save_pretrained("x"), "stopdown adapter merge"),
        (lambda pipe: ControlledWan.from_pipe(pipe), "use ControlledWan.from_pipeline"),
    ],
)
def test_what_cannot_be_kept_apart_is_refused(home: Path, call: Callable[[ControlledWan], object], message: str) -> None:
    pipe = load(home)
    before = latents(pipe, shutter="1/20")
    with pytest.raises(InputError, match=message):
        call(pipe)
    assert torch.equal(latents(pipe, shutter="1/20"), before)


def replace_processors(pipe: ControlledWan) -> None:
    """Set every attention processor, as people do to choose a backend."""
    from diffusers.models.transformers.transformer_wan import WanAttnProcessor

    for block in pipe.transformer.blocks:
        block.attn2.set_processor(WanAttnProcessor())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda pipe: pipe.transformer.unload_lora(), "LoRA is in 0 of 60 projections"),
        (lambda pipe: pipe.transformer.delete_adapters("stopdown"), "LoRA is in 0 of 60 projections"),
        (lambda pipe: pipe.transformer.disable_lora(), "LoRA is disabled"),
        (lambda pipe: pipe.transformer.fuse_lora(), "LoRA lies under a merged one"),
        (replace_processors, "attention processor in block 0 was replaced"),
    ],
)
def test_calls_on_the_transformer_itself_are_found(home: Path, call: Callable[[ControlledWan], object], message: str) -> None:
    pipe = load(home)
    call(pipe)
    with pytest.raises(InputError, match=message) as caught:
        latents(pipe, shutter="1/20")
    assert str(caught.value).isprintable()


def test_a_control_alone_lets_others_merge(home: Path) -> None:
    pipe = load(home, "control")
    alone = latents(pipe, shutter="1/20")
    pipe.load_lora_weights(home / "theirs" / LORA_FILE, adapter_name="theirs")
    beside = latents(pipe, shutter="1/20")
    pipe.fuse_lora()
    torch.testing.assert_close(latents(pipe, shutter="1/20"), beside, atol=1e-4, rtol=1e-4)
    pipe.unfuse_lora()
    pipe.unload_lora_weights()
    torch.testing.assert_close(latents(pipe, shutter="1/20"), alone, atol=1e-4, rtol=1e-4)
