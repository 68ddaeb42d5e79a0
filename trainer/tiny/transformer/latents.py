"""The world's clips as latents, turned four ways, computed once.

Shapes: N clips, R turns, C latent channels, t latent frames, h rows, w columns.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from numpy.typing import NDArray
from torch import Tensor

from trainer.tiny.shared.augmentation import TURNS
from trainer.tiny.shared.clips import Clips, Entry
from trainer.tiny.shared.config import HEIGHT, WIDTH
from trainer.tiny.vae.unchunked_vae import encode_moments
from trainer.tiny.vae.vae_stage import to_video
from trainer.weights.precision import autocast

CHUNK = 16


@dataclass(frozen=True)
class Latents:
    """Latents of the clips of one length: half floats [N, R, C, t, h, w], normalised, with the clips they are of.

    `covered` says where things are [N, R, t, h, w].
    """

    frames: int
    entries: tuple[Entry, ...]
    values: NDArray[np.float16]
    covered: NDArray[np.bool_]


def latent_frames(vae: AutoencoderKLWan, frames: int) -> int:
    """Return how many latents a clip has in time."""
    return 1 + (frames - 1) // int(vae.config.scale_factor_temporal)


def latent_shape(vae: AutoencoderKLWan, frames: int) -> tuple[int, int, int, int]:
    """Return the shape [C, t, h, w] of a clip's latents."""
    space = int(vae.config.scale_factor_spatial)
    return int(vae.config.z_dim), latent_frames(vae, frames), HEIGHT // space, WIDTH // space


def encode_world(vae: AutoencoderKLWan, clips: Clips, folder: Path, name: str, turns: int) -> list[Latents]:
    """Encode clips of every length and turn; `name` tells autoencoders apart.

    What lies in `folder` already is used clip by clip, so that a grown world costs its new clips only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for frames in sorted({entry.frames for entry in clips.entries}):
        entries = tuple(entry for entry in clips.entries if entry.frames == frames)
        paths = [folder / f"{name}-{frames}-{turn}.npz" for turn in range(turns)]
        parts = [_resumed(vae, clips, entries, turn, path) for turn, path in enumerate(paths)]
        step = int(vae.config.scale_factor_temporal)
        seen = [[covered_latents(turn.frames(clips.covered(entry)), step) for turn in TURNS[:turns]] for entry in entries]
        found.append(Latents(frames, entries, np.stack(parts, axis=1), np.array(seen)))
    return found


def covered_latents(covered_Thw: NDArray[np.bool_], step: int) -> NDArray[np.bool_]:
    """Return which latents [t, h, w] hold a covered cell: the first frame's alone, then those of `step` frames each.

    `covered_Thw` is `[T, H, W]`, shares in [0, 1].
    """
    later = covered_Thw[1:].reshape(-1, step, *covered_Thw.shape[1:]).any(axis=1)
    return np.concatenate([covered_Thw[:1], later])


def _resumed(vae: AutoencoderKLWan, clips: Clips, entries: Sequence[Entry], turn: int, path: Path) -> NDArray[np.float16]:
    """Return the latents of entries [N, C, t, h, w], from a file where it has them; the file then has all."""
    known: dict[str, NDArray[np.float16]] = {}
    if path.is_file():
        with np.load(path) as held:
            known = dict(zip(held["ids"].tolist(), held["values"], strict=True))
    missing = [entry for entry in entries if entry.clip_id not in known]
    if missing:
        known |= dict(zip([entry.clip_id for entry in missing], _encode(vae, clips, missing, turn), strict=True))
        scratch = path.with_name(f".{path.stem}.{os.getpid()}.npz")
        np.savez(scratch, ids=np.array(list(known)), values=np.stack(list(known.values())))
        os.replace(scratch, path)
    return np.stack([known[entry.clip_id] for entry in entries])


@torch.no_grad()
def _encode(vae: AutoencoderKLWan, clips: Clips, entries: Sequence[Entry], turn: int) -> NDArray[np.float16]:
    mean, std = (torch.tensor(vae.config[key]).view(1, -1, 1, 1, 1) for key in ("latents_mean", "latents_std"))
    rows = []
    for start in range(0, len(entries), CHUNK):
        videos = np.stack([TURNS[turn].frames(clips.video(entry)) for entry in entries[start : start + CHUNK]])
        with autocast():  # its rounding is far below the noise trained on
            latents = encode_moments(vae, to_video(videos)).chunk(2, dim=1)[0].float()
        rows.append(((latents - mean) / std).numpy().astype(np.float16))
    return np.concatenate(rows)


def decode_normalised(vae: AutoencoderKLWan, latents_BCTHW: Tensor) -> NDArray[np.uint8]:
    """Return the frames uint8 [B, T, H, W, 3] of normalised latents."""
    from trainer.tiny.vae.unchunked_vae import decode_latents

    mean, std = (torch.tensor(vae.config[key]).view(1, -1, 1, 1, 1) for key in ("latents_mean", "latents_std"))
    with torch.no_grad():
        video = decode_latents(vae, latents_BCTHW.float() * std + mean).clamp(-1, 1)
    return video.add(1).mul(127.5).round().to(torch.uint8).permute(0, 2, 3, 4, 1).numpy()


def captions_of(latents: Mapping[int, Latents]) -> set[str]:
    """Return all captions, turned as their clips are."""
    return {
        turn.caption(entry.caption)
        for part in latents.values()
        for entry in part.entries
        for turn in TURNS[: part.values.shape[1]]
    }


def write_json(path: Path, value: object) -> None:
    """Write JSON whole: temporary file, then rename."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(json.dumps(value, indent=2))
    os.replace(scratch, path)
