"""The adapter's folder: written whole, read strictly, and its LoRA is one that diffusers reads."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from trainer_support import adapted, predict, scramble, tiny_config, tiny_inputs, tiny_transformer

from scenes.axes import UnitLaw
from scenes.errors import InputError
from trainer.adapters.adapter_weights import CONTROL_FILE, LORA_FILE
from trainer.adapters.card import AdapterCard, installed_versions
from trainer.adapters.folder import attach_saved, save_adapter
from trainer.adapters.saved import SavedAdapter
from trainer.backbones.load import fingerprint
from trainer.control import attach, axis_control
from trainer.errors import DiskFullError
from trainer.weights.full_disk import full_disk_in_words

RECIPE = {"name": "demo", "train": {"steps": 12}}


def saved(folder: Path, **kwargs: object) -> AdapterCard:
    """Save a scrambled adapter."""
    config = kwargs.pop("config", None)
    return save_adapter(folder, {"transformer": adapted(config)}, backbone_id="tiny", step=12, **kwargs)


def test_everything_comes_back(tmp_path: Path) -> None:
    for config in (tiny_config(), tiny_config("aperture", gate="learned"), tiny_config(lora=False), tiny_config(control=False)):
        adapter = adapted(config)
        folder = tmp_path / str(hash(config))
        card = save_adapter(folder, {"transformer": adapter}, backbone_id="tiny", step=12, dataset_version="v-1", recipe=RECIPE)
        assert SavedAdapter.open(folder).card == card
        assert (card.step, card.dataset_version, card.recipe, card.backbone.id) == (12, "v-1", RECIPE, "tiny")
        assert card.versions == installed_versions() and torch.__version__.startswith(card.versions["torch"].split("+")[0])
        loaded = attach_saved({"transformer": tiny_transformer()}, SavedAdapter.open(folder))
        assert loaded["transformer"].config == config
        own, read = adapter.parameters(), loaded["transformer"].parameters()
        assert own.keys() == read.keys() and all(torch.equal(own[name], read[name]) for name in own)
        assert not any(p.requires_grad for p in loaded["transformer"].transformer.parameters())
        assert (folder / CONTROL_FILE).exists() == (config.control is not None)
        assert (folder / LORA_FILE).exists() == (config.lora is not None)


def test_the_same_weights_are_the_same_bytes(tmp_path: Path) -> None:
    adapter = adapted()
    written = set()
    for number in range(6):  # what orders at random seldom does the same six times
        folder = tmp_path / str(number)
        save_adapter(folder, {"transformer": adapter}, backbone_id="tiny", step=1)
        written.add(tuple((folder / name).read_bytes() for name in (CONTROL_FILE, LORA_FILE)))
    assert len(written) == 1


def test_a_law_of_its_own_travels(tmp_path: Path) -> None:
    config = tiny_config("shutter")
    axis = axis_control("shutter", UnitLaw(neutral=0.01, ratio=3.0))
    config = config.model_copy(update={"control": config.control.model_copy(update={"axes": (axis,)})})
    saved(tmp_path / "a", config=config)
    read = SavedAdapter.open(tmp_path / "a").card.config.control.axes[0]
    assert read.control("30ms") == pytest.approx(1.0) and read.format(-1.0) == "1/300"


def test_the_lora_says_of_itself_what_every_peft_knows(tmp_path: Path) -> None:
    """Plain diffusers hands all of it to LoraConfig, and peft 0.18 to 0.20 raise TypeError for a field that came later."""
    saved(tmp_path / "a")
    with safe_open(tmp_path / "a" / LORA_FILE, framework="pt") as file:
        stored = json.loads(file.metadata()["lora_adapter_metadata"])
    known = ("r", "lora_alpha", "target_modules", "lora_dropout", "bias", "peft_type")
    assert set(stored) == {f"transformer.{name}" for name in known}


def test_diffusers_reads_the_lora(tmp_path: Path) -> None:
    adapter = adapted()
    save_adapter(tmp_path / "a", {"transformer": adapter}, backbone_id="tiny", step=1)
    plain = tiny_transformer()
    state, metadata = WanPipeline.lora_state_dict(tmp_path / "a", return_lora_metadata=True)
    plain.load_lora_adapter(state, metadata=metadata)
    adapter.set_mode("lora_only")
    with torch.no_grad():
        expected = predict(adapter.transformer, tiny_inputs(), [[0.0, 0.0]])
        assert torch.equal(predict(plain, tiny_inputs()), expected)


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
def test_another_lora_stays_beside_the_adapter(tmp_path: Path) -> None:
    """A distillation LoRA loaded through diffusers keeps acting, whatever the mode of the adapter."""
    other = scramble(attach(tiny_transformer(), tiny_config(control=False)), seed=9)
    save_adapter(tmp_path / "other", {"transformer": other}, backbone_id="tiny", step=1)
    state, metadata = WanPipeline.lora_state_dict(tmp_path / "other", return_lora_metadata=True)
    adapter = adapted()
    adapter.transformer.load_lora_adapter(state, metadata=metadata, adapter_name="distilled")
    with torch.no_grad():
        alone = predict(other.transformer, tiny_inputs())
        adapter.set_mode("decoupled", strength=0.0)
        assert torch.equal(predict(adapter.transformer, tiny_inputs()), alone)
        adapter.set_mode("decoupled")
        assert not torch.equal(predict(adapter.transformer, tiny_inputs(), [[0.5, 0.5]]), alone)
        adapter.detach()
        assert torch.equal(predict(adapter.transformer, tiny_inputs()), alone)


def test_two_experts_share_a_folder(tmp_path: Path) -> None:
    first, second = adapted(seed=0), scramble(attach(tiny_transformer(1), tiny_config()), seed=8)
    save_adapter(tmp_path / "a", {"transformer": first, "transformer_2": second}, backbone_id="two", step=1)
    opened = SavedAdapter.open(tmp_path / "a")
    loaded = attach_saved({"transformer": tiny_transformer(0), "transformer_2": tiny_transformer(1)}, opened)
    for name, own in (("transformer", first), ("transformer_2", second)):
        assert all(torch.equal(p, own.parameters()[k]) for k, p in loaded[name].parameters().items())
    with pytest.raises(InputError, match="adapts 'transformer_2', which this backbone lacks"):
        attach_saved({"transformer": tiny_transformer(0)}, SavedAdapter.open(tmp_path / "a"))
    with pytest.raises(InputError, match="this backbone's 'transformer' is another one"):
        attach_saved({"transformer": tiny_transformer(1), "transformer_2": tiny_transformer(0)}, opened)


def test_another_backbone_is_refused_unless_allowed(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    other = tiny_transformer(5)
    with pytest.raises(InputError, match="was trained on tiny and this backbone's 'transformer' is another one"):
        attach_saved({"transformer": other}, SavedAdapter.open(tmp_path / "a"))
    assert other.state_dict().keys() == tiny_transformer().state_dict().keys()
    attach_saved({"transformer": other}, SavedAdapter.open(tmp_path / "a"), allow_other_backbone=True)


def test_a_refused_load_leaves_the_backbone_bare(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    weights = load_file(tmp_path / "a" / CONTROL_FILE)
    del weights["embedding.lin1.bias"]
    save_file(weights, tmp_path / "a" / CONTROL_FILE)
    transformer = tiny_transformer()
    with pytest.raises(InputError, match=r"1 missing \(embedding.lin1.bias\)"):
        attach_saved({"transformer": transformer}, SavedAdapter.open(tmp_path / "a"))
    with torch.no_grad():
        assert torch.equal(predict(transformer, tiny_inputs()), predict(tiny_transformer(), tiny_inputs()))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (CONTROL_FILE, {"blocks.3.extra": torch.zeros(1)}, r"1 unexpected \(blocks.3.extra\)"),
        (CONTROL_FILE, {"blocks.2.key_norm.weight": torch.zeros(31)}, r"key_norm.weight \[31\] instead of \[32\]"),
        (LORA_FILE, {"transformer.blocks.0.ffn.net.2.lora_A.weight": None}, "1 missing"),
        (LORA_FILE, {"text_encoder.x.lora_A.weight": torch.zeros(1)}, "weights outside 'transformer.'"),
    ],
)
def test_weights_load_strictly(tmp_path: Path, file: str, change: dict, message: str) -> None:
    saved(tmp_path / "a")
    weights = {name: tensor for name, tensor in (load_file(tmp_path / "a" / file) | change).items() if tensor is not None}
    save_file(weights, tmp_path / "a" / file)
    with pytest.raises(InputError, match=message):
        attach_saved({"transformer": tiny_transformer()}, SavedAdapter.open(tmp_path / "a"))


def test_folders_that_are_no_adapters_are_refused(tmp_path: Path) -> None:
    for name, message in (("absent", "does not exist"), (".", "has no control.json")):
        with pytest.raises(InputError, match=message):
            SavedAdapter.open(tmp_path / name)
    saved(tmp_path / "a")
    whole = (tmp_path / "a" / "control.json").read_bytes()
    card = json.loads(whole)
    for change, message in (({"step": -1}, "step: "), ({"surprise": 1}, "surprise: "), ({"format": 3}, "format: ")):
        (tmp_path / "a" / "control.json").write_text(json.dumps(card | change))
        with pytest.raises(InputError, match=message) as caught:
            SavedAdapter.open(tmp_path / "a")
        assert "\n" not in str(caught.value)
    (tmp_path / "a" / "control.json").write_bytes(whole)
    for file in (CONTROL_FILE, LORA_FILE):
        whole = (tmp_path / "a" / file).read_bytes()
        (tmp_path / "a" / file).write_bytes(whole[:100])
        with pytest.raises(InputError, match="cannot be read"):
            attach_saved({"transformer": tiny_transformer()}, SavedAdapter.open(tmp_path / "a"))
        (tmp_path / "a" / file).write_bytes(whole)
    attach_saved({"transformer": tiny_transformer()}, SavedAdapter.open(tmp_path / "a"))


def test_a_folder_is_replaced_only_on_request_and_wholly(tmp_path: Path) -> None:
    saved(tmp_path / "a", config=tiny_config(lora=False))
    with pytest.raises(InputError, match="exists"):
        saved(tmp_path / "a")
    saved(tmp_path / "a", config=tiny_config(control=False), overwrite=True)
    assert not (tmp_path / "a" / CONTROL_FILE).exists() and (tmp_path / "a" / LORA_FILE).exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_failed_save_leaves_the_old_folder_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "a", config=tiny_config(lora=False))
    before = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        saved(tmp_path / "a", overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_model_card_says_what_the_adapter_does(tmp_path: Path) -> None:
    saved(tmp_path / "a", dataset_version="v-1")
    text = (tmp_path / "a" / "README.md").read_text()
    for words in ("base_model: tiny", "| shutter | 1/400 | 1/80 | 1/16 |", "blocks 2, 3", "version v-1", "12 steps"):
        assert words in text


def test_fingerprints_tell_backbones_apart_and_nothing_else() -> None:
    own = fingerprint(tiny_transformer())
    assert fingerprint(tiny_transformer().to(torch.bfloat16)) == own
    assert fingerprint(adapted().transformer) == own
    assert fingerprint(tiny_transformer(1)) != own
    nudged = tiny_transformer()
    with torch.no_grad():
        nudged.blocks[1].attn1.to_q.bias[3] += 0.1
    assert fingerprint(nudged) != own


def test_files_are_for_all_that_the_umask_allows_and_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    before, limits = os.umask(0o002), resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        saved(tmp_path / "a")
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
        with pytest.raises(DiskFullError), full_disk_in_words(tmp_path, "free some"):
            saved(tmp_path / "b")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        os.umask(before)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert modes == {0o664} and stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o775
