"""Training from one packed file: what is packed, ten steps on a CPU, weights in pieces, and bringing them back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from trainer.tiny import train_packed
from trainer.tiny.packing import bring_back, pack
from trainer.tiny.shared.clips import Entry
from trainer.tiny.shared.config import Optimizing, TextSettings, TransformerSettings, VaeSettings
from trainer.tiny.shared.train_stage import train_stage
from trainer.tiny.train_packed import Pack, read_weights, train
from trainer.tiny.transformer.latents import Latents
from trainer.tiny.transformer.tokenizer import build_tokenizer, count_words
from trainer.tiny.transformer.transformer_stage import TransformerStage
from trainer.tiny.vae.vae_stage import build_vae
from trainer.training.checkpoints.checkpoint import checkpoint_steps, read_latest

CAPTIONS = ("A red cube moves upwards.", "A teal cone moves from left to right.", "A small navy torus on the left.")
SETTINGS = TransformerSettings(
    heads=2,
    head_dim=12,
    layers=2,
    feed_forward=32,
    time_features=16,
    batch=4,
    steps=40,
    turns=2,
    things=3.0,
    frames=((9, 0.6), (1, 0.4)),
    text=TextSettings(width=16, layers=1, heads=2),
    optimizing=Optimizing(rate=2e-3, warmup=2, average=0.9, compile=False),
)


@pytest.fixture(scope="module")
def stage() -> TransformerStage:
    """Return a stage over random latents that say what their captions do: one channel a caption."""
    vae = build_vae(VaeSettings(encoder_dim=8, decoder_dim=8, latent_channels=4, optimizing=Optimizing(rate=1e-3)))
    rng = np.random.default_rng(0)
    entries, values = [], []
    for index in range(36):
        split = "validation" if index % 6 == 5 else "train"
        entries.append(Entry(f"clip-{index}", 0, 9, CAPTIONS[index % 3], split, {}))
        latents = 0.1 * rng.standard_normal((2, 4, 5, 8, 8))
        latents[:, index % 3] += 2.0
        values.append(latents)
    covered = np.zeros((36, 2, 5, 8, 8), dtype=bool)
    covered[..., 2:5, 2:5] = True
    held = Latents(9, tuple(entries), np.array(values, dtype=np.float16), covered)
    return TransformerStage(SETTINGS, [held], build_tokenizer(count_words(CAPTIONS)), vae)


def test_packed_latents_are_those_of_the_stage_to_eight_bits(stage: TransformerStage, tmp_path: Path) -> None:
    counts = pack(stage, tmp_path / "world.safetensors")
    assert counts == {"validation.9": 6, "train.9": 60}, "every clip and, where there is room, every turn"
    held = Pack(tmp_path / "world.safetensors", "cpu")
    batch = held.take("validation", 9, torch.arange(6), 5)
    wanted = stage.latents[9].values[[i for i in range(36) if i % 6 == 5], 0][:, :, :3]
    assert batch["latents"].shape == (6, 4, 3, 8, 8)
    assert np.quantile(np.abs(batch["latents"].numpy() - wanted), 0.99) < 0.02, "a few are cut"
    assert batch["covered"][:, 0].sum() == 6 * 3 * 9
    modules = held.modules()
    for name, value in stage.module.named_parameters():
        torch.testing.assert_close(dict(modules.named_parameters())[name], value, atol=2e-2, rtol=1e-2)
    room = (tmp_path / "world.safetensors").stat().st_size - 20 * 4 * 5 * 64
    assert pack(stage, tmp_path / "smaller.safetensors", most_bytes=room + 65536)["train.9"] < 60
    assert (tmp_path / "smaller.safetensors").stat().st_size <= room + 65536


def test_ten_steps_learn_write_pieces_go_on_and_come_back(
    stage: TransformerStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_packed, "PIECE_BYTES", 40_000)
    packed, out = tmp_path / "world.safetensors", tmp_path / "out"
    pack(stage, packed)
    assert train(packed, out, steps=40, minutes=0.0, device="cpu", compiled=False) == 0
    before = json.loads((out / "state.json").read_text())["log"][-1]["held_out"]
    assert train(packed, out, steps=10, minutes=5.0, device="cpu", compiled=False) == 10
    first = json.loads((out / "state.json").read_text())
    assert first["log"][-1]["held_out"]["all"] < 0.97 * before["all"]
    pieces = sorted(path.name for path in out.glob("weights-*"))
    assert pieces == sorted(first["pieces"]) and len(pieces) > 2, "no piece of an earlier state is left"
    assert all((out / piece).stat().st_size < 80_000 for piece in pieces)
    assert train(packed, out, steps=12, minutes=5.0, device="cpu", compiled=False) == 12
    assert bring_back(stage, out, tmp_path / "transformer") == 12
    latest = read_latest(tmp_path / "transformer")
    _, weights = read_weights(out)
    assert latest is not None and latest.averaged is not None and latest.step == 12
    for name, value in latest.averaged.items():
        torch.testing.assert_close(value, weights[f"average.{name}"].float())
    train_stage(stage, SETTINGS.optimizing, tmp_path / "transformer")
    assert checkpoint_steps(tmp_path / "transformer") == [40], "it goes on from there"
    assert bring_back(stage, out, tmp_path / "transformer") == 12
    assert checkpoint_steps(tmp_path / "transformer") == [12]


def test_it_needs_none_of_what_a_lent_machine_lacks() -> None:
    code = (
        "import sys, trainer.tiny.train_packed\n"
        "print([name for name in ('pydantic', 'av', 'bpy', 'scipy', 'colour', 'pyarrow', 'PIL.Image') if name in sys.modules])"
    )
    hidden = "import sys\nfor name in ('pydantic', 'av', 'colour', 'pyarrow', 'peft'): sys.modules[name] = None\n"
    done = subprocess.run([sys.executable, "-c", hidden + code], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
