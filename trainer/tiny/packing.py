"""Packs what the transformer's training needs into one file for `trainer.tiny.train_packed`, and brings its weights back.

    python -m trainer.tiny.packing pack --work out/tiny world.safetensors
    python -m trainer.tiny.packing bring-back --work out/tiny OUT

Shapes: N clips, C latent channels, t latent frames, h rows, w columns, L text tokens.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from scenes.errors import InputError
from trainer.tiny.shared.augmentation import TURNS
from trainer.tiny.shared.config import TransformerSettings, read_settings
from trainer.tiny.shared.train_stage import load_average, stage_loop
from trainer.tiny.stages import TinyWork, latents, tokenizer, vae
from trainer.tiny.train_packed import read_weights
from trainer.tiny.transformer.text import tokenize
from trainer.tiny.transformer.transformer_stage import TransformerStage
from trainer.training.checkpoints.checkpoint import Checkpoint, checkpoint_path, checkpoint_steps, write_checkpoint

MOST_BYTES = 60 * 2**20
PLAIN = ("shared", "embed", "proj_out", "norm", "scale_shift")
CLIPPED = 0.001  # of the latents lie beyond eight bits


def pack(stage: TransformerStage, path: Path, most_bytes: int = MOST_BYTES, seed: int = 0) -> dict[str, int]:
    """Write latents of 8 bits, one turn of each clip drawn at random and further turns while they fit; return their counts.

    Raises InputError where not even the held-out clips fit beside the weights.
    """
    start = {f"start.{name}": p.detach().to(torch.bfloat16).contiguous() for name, p in stage.module.named_parameters()}
    scales_C = _scales(stage)
    made: dict[str, Tensor] = {**start, "scales": torch.from_numpy(scales_C)}
    made["empty.ids"], made["empty.lengths"] = (part.to(torch.int16) for part in tokenize(stage.tokenizer, [""]))
    rng = np.random.default_rng(seed)
    room, counts = most_bytes - sum(tensor.nbytes for tensor in made.values()) - 65536, {}
    for split in ("validation", "train"):
        for length, part in sorted(stage.latents.items()):
            picks = _picks(part.values.shape[1], [e.split == split for e in part.entries], rng, turned=split == "train")
            each = part.values[0, 0].size + part.covered[0, 0].size + 2 * stage.tokens[length][0][0].shape[1] + 2
            picks = picks[: max(0, room // each)]
            if not picks:
                continue
            room -= each * len(picks)
            name = f"{split}.{length}"
            made |= {f"{name}.{key}": value for key, value in _taken(stage, length, picks, scales_C).items()}
            counts[name] = len(picks)
    if not any(name.startswith("validation") for name in counts):
        raise InputError(f"the weights leave no room in {most_bytes} bytes; pack a smaller transformer")
    save_file(made, path, metadata={"told": json.dumps(_told(stage))})
    return counts


def _scales(stage: TransformerStage) -> NDArray[np.float32]:
    values = np.concatenate(
        [np.moveaxis(part.values[:, 0], 1, 0).reshape(part.values.shape[2], -1) for part in stage.latents.values()], axis=1
    )
    return (np.quantile(np.abs(values), 1 - CLIPPED, axis=1) / 127).astype(np.float32)


def _picks(turns: int, chosen: list[bool], rng: np.random.Generator, *, turned: bool) -> list[tuple[int, int]]:
    """Return (clip, turn): every chosen clip once, then again turned otherwise, in an order of its own each time."""
    clips = np.flatnonzero(chosen)
    if not turned:
        return [(int(clip), 0) for clip in clips]
    first = rng.integers(turns, size=len(clips))
    return [(int(clips[at]), int((first[at] + more) % turns)) for more in range(turns) for at in rng.permutation(len(clips))]


def _taken(
    stage: TransformerStage, length: int, picks: list[tuple[int, int]], scales_C: NDArray[np.float32]
) -> dict[str, Tensor]:
    part, tokens = stage.latents[length], stage.tokens[length]
    clips, turns = (np.array(column) for column in zip(*picks, strict=True))
    eighths = np.rint(part.values[clips, turns].astype(np.float32) / scales_C[:, None, None, None]).clip(-127, 127)
    return {
        "latents": torch.from_numpy(eighths.astype(np.int8)),
        "covered": torch.from_numpy(part.covered[clips, turns].astype(np.uint8)),
        "ids": torch.stack([tokens[turn][0][clip] for clip, turn in picks]).to(torch.int16),
        "lengths": torch.stack([tokens[turn][1][clip] for clip, turn in picks]).to(torch.int16),
    }


def _told(stage: TransformerStage) -> dict[str, Any]:
    s: TransformerSettings = stage.settings
    transformer = {k: v for k, v in stage.transformer.config.items() if not k.startswith("_")}
    return {
        "frames": sorted(stage.latents),
        "time": int(stage.vae.config.scale_factor_temporal),
        "transformer": transformer,
        "text_encoder": stage.text_encoder.config.to_dict(),
        "turns": len(TURNS),
        "settings": {
            "rate": s.optimizing.rate,
            "matrix_rate": s.optimizing.matrix_rate,
            "plain": PLAIN,
            "frames": s.frames,
            "batch": s.batch,
            "empty": s.empty,
            "padded": s.padded,
            "shift": s.shift,
            "things": s.things,
            "warmup": s.optimizing.warmup,
            "hold": s.optimizing.hold,
            "average": s.optimizing.average,
            "seed": s.optimizing.seed,
        },
    }


def bring_back(stage: TransformerStage, made: Path, folder: Path) -> int:
    """Write the weights that a packed training left as the checkpoint of an ordinary one, which goes on from there."""
    step, weights = read_weights(made)
    step = min(step, sum(phase.steps for phase in stage.phases))
    loop = stage_loop(stage, stage.settings.optimizing, folder)
    live, averaged = ({name: weights[f"{kind}.{name}"].float() for name in loop.parameters} for kind in ("live", "average"))
    checkpoint = Checkpoint(step=step, parameters=live, averaged=averaged, optimizer={}, losses=(), identity=loop.identity)
    write_checkpoint(folder, checkpoint, keep=1)
    for other in checkpoint_steps(folder):
        if other > step:  # of what was trained here before; a training goes on from the last one
            shutil.rmtree(checkpoint_path(folder, other))
    return step


def main(arguments: list[str] | None = None) -> None:
    """Pack, or bring back."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pack", "bring-back"))
    parser.add_argument("path", type=Path)
    parser.add_argument("--work", type=Path, default=Path("out/tiny"))
    parser.add_argument("--settings", type=Path)
    given = parser.parse_args(arguments)
    work = TinyWork(given.work, read_settings(given.settings), lambda: False)
    stage = TransformerStage(work.settings.transformer, latents(work), tokenizer(work), vae(work))
    folder = work.folder / "transformer"
    if given.what == "bring-back":
        print(f"step {bring_back(stage, given.path, folder)}")  # noqa: T201
        return
    if checkpoint_steps(folder):
        load_average(stage.module, folder)
    print(pack(stage, given.path), given.path.stat().st_size)  # noqa: T201


if __name__ == "__main__":
    main()
