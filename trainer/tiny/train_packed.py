"""Trains the transformer and the text encoder from one packed file, on a machine that is lent for minutes.

    python -m trainer.tiny.train_packed world.safetensors OUT --minutes 8

Needs torch (2.6 or later), diffusers, transformers and safetensors only, and one file, which `trainer.tiny.packing` makes.
Every minute, and at the end, it writes the averaged and the live weights as bfloat16 in pieces of at most 16 MiB; run again
on the same OUT it goes on from them (the optimizer's moments begin anew).

Shapes: N clips, B batch, C latent channels, T latent frames, H rows, W columns, L text tokens.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import UMT5Config, UMT5EncoderModel

from trainer.tiny.shared.batched_muon import Muon
from trainer.tiny.transformer.text import embed
from trainer.tiny.transformer.unpadded_flow import padding_bias, velocity
from trainer.training.ema import start_average, update_average
from trainer.weights.precision import autocast

TIMES = 1000
PIECE_BYTES = 16 * 2**20 - 65536
STATE = "state.json"
SLOTS = 8  # of the noise levels that are measured apart
Batch = dict[str, Tensor]


class Pack:
    """A packed file on a device: latents by split and length, tokens, and the model that they are for."""

    def __init__(self, path: Path, device: str) -> None:
        with safe_open(path, "pt") as file:
            self.told: dict[str, Any] = json.loads(file.metadata()["told"])
            self.held = {name: file.get_tensor(name).to(device) for name in file.keys()}  # noqa: SIM118
        self.device = torch.device(device)
        self.lengths = [int(frames) for frames in self.told["frames"]]

    def modules(self) -> nn.ModuleDict:
        """Return transformer and text encoder with the weights that the file begins with."""
        modules = nn.ModuleDict(
            {
                "transformer": WanTransformer3DModel(**self.told["transformer"]),
                "text_encoder": UMT5EncoderModel(UMT5Config(**self.told["text_encoder"])),
            }
        )
        start = {name.removeprefix("start."): value.float() for name, value in self.held.items() if name.startswith("start.")}
        load_exactly(modules, start)
        return modules.to(self.device)

    def take(self, split: str, length: int, rows: Tensor, frames: int) -> Batch:
        """Return clips [B, C, T, H, W] of a length, cut to so many frames, where their things are, and their tokens."""
        held = 1 + (frames - 1) // self.told["time"]
        name = f"{split}.{length}"
        latents = self.held[f"{name}.latents"][rows, :, :held].float() * self.held["scales"].view(1, -1, 1, 1, 1)
        covered = self.held[f"{name}.covered"][rows, None, :held].bool()
        ids, lengths = self.held[f"{name}.ids"][rows].long(), self.held[f"{name}.lengths"][rows].long()
        return {"latents": latents, "covered": covered, "ids": ids, "lengths": lengths}

    def count(self, split: str, length: int) -> int:
        """Return how many clips of a length a split has."""
        name = f"{split}.{length}.ids"
        return len(self.held[name]) if name in self.held else 0


def load_exactly(modules: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load weights by name; tensors that are one (an embedding under two names) need one of them."""
    parameters = dict(modules.named_parameters())
    if set(weights) != set(parameters):
        raise ValueError(f"weights differ from the model: {sorted(set(weights) ^ set(parameters))[:4]}; pack them again")
    with torch.no_grad():
        for name, value in weights.items():
            parameters[name].copy_(value)


class PackedTraining:
    """The loop: batches from the pack, a running average, checkpoints that go on."""

    def __init__(self, pack: Pack, out: Path, steps: int, compiled: bool) -> None:
        self.pack, self.out, self.steps, self.s = pack, out, steps, pack.told["settings"]
        self.modules = pack.modules()
        self.step = 0
        self.live = dict(self.modules.named_parameters())
        self.average = start_average(self.live)
        out.mkdir(parents=True, exist_ok=True)
        if (out / STATE).is_file():
            self._take_up()
        plain = [(n, p) for n, p in self.live.items() if p.ndim != 2 or min(p.shape) < 2 or self._is_plain(n)]
        named = {name for name, _ in plain}
        self.muon = Muon([p for n, p in self.live.items() if n not in named], lr=self.s["matrix_rate"])
        self.adamw = torch.optim.AdamW([p for _, p in plain], lr=self.s["rate"], betas=(0.9, 0.95), weight_decay=0.01)
        self.velocity: Callable[..., Tensor] = torch.compile(velocity, dynamic=False) if compiled else velocity

    def _is_plain(self, name: str) -> bool:
        return any(part in name for part in self.s["plain"])

    def _batch(self, generator: torch.Generator) -> Batch:
        s, device = self.s, self.pack.device
        choices, shares = zip(*s["frames"], strict=True)
        frames = int(choices[int(torch.multinomial(torch.tensor(shares), 1, generator=generator))])
        lengths = [n for n in self.pack.lengths if n >= frames and self.pack.count("train", n)]
        counts = torch.tensor([float(self.pack.count("train", n)) for n in lengths])
        length = lengths[int(torch.multinomial(counts, 1, generator=generator))]
        rows = torch.randint(self.pack.count("train", length), (s["batch"],), generator=generator).to(device)
        made = self.pack.take("train", length, rows, frames)
        left_out = (torch.rand(s["batch"], generator=generator) < s["empty"]).to(device)
        made["ids"] = torch.where(left_out[:, None], self.pack.held["empty.ids"].long(), made["ids"])
        made["lengths"] = torch.where(left_out, self.pack.held["empty.lengths"].long(), made["lengths"])
        which = torch.randint(len(s["padded"]), (s["batch"],), generator=generator)
        made["padded"] = torch.tensor(s["padded"])[which].to(device)
        quantile = (torch.arange(s["batch"]) + torch.rand(s["batch"], generator=generator)) / s["batch"]
        made["times"] = shifted(torch.special.ndtri(quantile.clamp(1e-4, 1 - 1e-4)).sigmoid(), s["shift"]).to(device)
        made["noise"] = torch.randn(made["latents"].shape, generator=generator).to(device)
        return made

    def squared_errors(self, batch: Batch) -> Tensor:
        """Return the squared error of the velocity, the mean over channels [B, 1, T, H, W]."""
        t = batch["times"].view(-1, 1, 1, 1, 1)
        noisy = (1 - t) * batch["latents"] + t * batch["noise"]
        bias = padding_bias(batch["lengths"], batch["ids"].shape[1], batch["padded"])
        with autocast(self.pack.device.type):
            text = embed(self.modules["text_encoder"], batch["ids"], batch["lengths"])
            made = self.velocity(self.modules["transformer"], noisy, batch["times"] * TIMES, text, bias)
        return (made.float() - (batch["noise"] - batch["latents"])).square().mean(1, keepdim=True)

    def one(self) -> float:
        """Make one step; return its loss."""
        generator = torch.Generator().manual_seed((self.s["seed"] << 32) + self.step)
        batch = self._batch(generator)
        squared = self.squared_errors(batch)
        weights = 1 + (self.s["things"] - 1) * batch["covered"].float()
        loss = (squared * weights / weights.mean()).mean()
        for parameter in self.live.values():
            parameter.grad = None
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.live.values(), 1.0)
        share = self._share()
        self.adamw.param_groups[0]["lr"] = self.s["rate"] * share
        self.adamw.step()
        self.muon.param_groups[0]["lr"] = self.s["matrix_rate"] * share
        self.muon.step()
        self.step += 1
        update_average(self.average, self.live, self.s["average"], self.step)
        return float(loss.detach()) if self.step % 50 == 0 else math.nan

    def _share(self) -> float:
        warm = min(1.0, (self.step + 1) / self.s["warmup"])
        late = (self.step / self.steps - self.s["hold"]) / (1 - self.s["hold"])
        return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(max(late, 0.0), 1.0))))

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the averaged and the live weights."""
        for name, parameter in self.live.items():
            held = parameter.detach().clone()
            parameter.copy_(self.average[name])
            self.average[name].copy_(held)

    @torch.no_grad()
    def evaluate(self) -> dict[str, Any]:
        """Return the held-out loss of the averaged weights, on all, on things and by noise level."""
        length = next(n for n in self.pack.lengths if self.pack.count("validation", n))
        rows = torch.arange(min(self.pack.count("validation", length), 96), device=self.pack.device)
        batch = self.pack.take("validation", length, rows, length)
        batch["padded"] = torch.full_like(batch["lengths"], 512)
        slot = torch.arange(len(rows)) % SLOTS
        times = shifted(torch.special.ndtri((slot + 0.5) / SLOTS).sigmoid(), self.s["shift"])
        batch["times"] = times.to(self.pack.device)
        batch["noise"] = torch.randn(batch["latents"].shape, generator=torch.Generator().manual_seed(0)).to(self.pack.device)
        self.swap()
        try:
            squared = self.squared_errors(batch)
        finally:
            self.swap()
        by_slot = [round(float(squared[slot == n].mean()), 4) for n in range(min(SLOTS, len(rows)))]
        covered = batch["covered"].expand_as(squared)
        return {"all": float(squared.mean()), "things": float(squared[covered].mean()), "by_noise": by_slot}

    def save(self, told: Mapping[str, Any]) -> None:
        """Write averaged and live weights in pieces, then the state that names them."""
        weights = {f"average.{n}": v for n, v in self.average.items()} | {f"live.{n}": v for n, v in self.live.items()}
        pieces: list[dict[str, Tensor]] = [{}]
        size = 0
        for name, value in weights.items():
            small = value.detach().to("cpu", torch.bfloat16).contiguous().clone()
            if size + small.nbytes > PIECE_BYTES:
                pieces, size = [*pieces, {}], 0
            pieces[-1][name] = small
            size += small.nbytes
        names = [f"weights-{self.step:07d}-{index:02d}.safetensors" for index in range(len(pieces))]
        for name, piece in zip(names, pieces, strict=True):
            save_file(piece, self.out / name)
        scratch = self.out / f".{STATE}"
        scratch.write_text(json.dumps({"step": self.step, "pieces": names, **told}, indent=1))
        scratch.replace(self.out / STATE)
        for old in self.out.glob("weights-*.safetensors"):
            if old.name not in names:
                old.unlink()

    def _take_up(self) -> None:
        self.step, weights = read_weights(self.out)
        device = self.pack.device
        kept = {n.removeprefix("average."): v.float().to(device) for n, v in weights.items() if n.startswith("average.")}
        load_exactly(self.modules, {n.removeprefix("live."): v.float() for n, v in weights.items() if n.startswith("live.")})
        self.average = {name: kept[name] for name in self.live}


def read_weights(folder: Path) -> tuple[int, dict[str, Tensor]]:
    """Return the step and the weights, `average.` and `live.` before their names, that a training left in a folder."""
    state = json.loads((folder / STATE).read_text())
    return int(state["step"]), {name: value for piece in state["pieces"] for name, value in load_file(folder / piece).items()}


def shifted(times: Tensor, shift: float) -> Tensor:
    """Return times moved towards noise, as Wan's schedulers do. `times` is `[B]`, in [0, 1]."""
    return shift * times / (1 + (shift - 1) * times)


def train(pack: Path, out: Path, *, steps: int, minutes: float, device: str, compiled: bool, save_s: float = 60.0) -> int:
    """Train until so many steps are made or the minutes are over; return the step reached."""
    began_s = saved_s = time.monotonic()
    training = PackedTraining(Pack(pack, device), out, steps, compiled)
    losses: list[float] = []
    rows: list[dict[str, Any]] = []
    while training.step < steps and time.monotonic() - began_s < 60 * minutes:
        losses.append(training.one())
        if time.monotonic() - saved_s > save_s:
            rows.append(_row(training, losses, began_s))
            training.save({"log": rows})
            saved_s, losses = time.monotonic(), []
    rows.append(_row(training, losses, began_s))
    training.save({"log": rows})
    return training.step


def _row(training: PackedTraining, losses: list[float], began_s: float) -> dict[str, Any]:
    known = [loss for loss in losses if not math.isnan(loss)]
    loss = sum(known) / len(known) if known else None
    row = {"step": training.step, "s": round(time.monotonic() - began_s, 1), "loss": loss, "held_out": training.evaluate()}
    print(json.dumps(row), flush=True)  # noqa: T201
    return row


def main(arguments: list[str] | None = None) -> None:
    """Run the training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=40000, help="where the schedule ends")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--plain", action="store_true", help="without torch.compile")
    given = parser.parse_args(arguments)
    train(given.pack, given.out, steps=given.steps, minutes=given.minutes, device=given.device, compiled=not given.plain)


if __name__ == "__main__":
    main()
