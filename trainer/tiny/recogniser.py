"""A small network that says what is in a clip: kinds and colours of its things, and the size of a single one.

It is trained on rendered clips alone, with their captions as labels, so that what it says of generated ones is a measure. Its
accuracy on held-out rendered clips stands beside; its features carry a Fréchet distance.

Shapes: B clips, T frames, H rows, W columns, 3 channels (RGB), P picked frames, F features.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from torch import Tensor, nn
from torch.nn import functional

from scenes.palette import COLORS
from scenes.primitives import SOLID_KINDS, spoken
from trainer.tiny.clips import Clips, Entry
from trainer.tiny.config import RecogniserSettings

SIZES = ("small", "medium", "large")
NAMED_COLORS, NAMED_KINDS = tuple(COLORS), tuple(spoken[kind] for kind in SOLID_KINDS)
KIND_WORDS = "|".join(sorted(NAMED_KINDS, key=len, reverse=True))  # an icosphere before the sphere in it
THING = re.compile(rf"(?:\b({'|'.join(SIZES)}) )?\b({'|'.join(NAMED_COLORS)}) ({KIND_WORDS}|tori)(?:s|es)?\b")
HEADS = (len(NAMED_KINDS), len(NAMED_COLORS), len(SIZES))
PICKED = (0.25, 0.5, 0.75)  # of a clip: things come from beyond the picture and leave it


@dataclass(frozen=True)
class Named:
    """What a caption names of one thing; the size is empty where it says none."""

    size: str
    color: str
    kind: str


def named_things(caption: str) -> tuple[Named, ...]:
    """Return the things that a caption names, in its order."""
    found = THING.findall(caption.lower())
    return tuple(Named(size, color, "torus" if kind == "tori" else kind) for size, color, kind in found)


class Recogniser(nn.Module):
    """Convolutions on single frames, the strongest answer of any place and frame, and three heads."""

    def __init__(self, settings: RecogniserSettings) -> None:
        super().__init__()
        w = settings.width
        layers: list[nn.Module] = []
        for into, out in ((3, w), (w, 2 * w), (2 * w, 3 * w), (3 * w, 4 * w)):
            layers += [nn.Conv2d(into, out, 3, stride=2 if out < 4 * w else 1, padding=1), nn.GroupNorm(4, out), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(4 * w, settings.features, 3, padding=1), nn.SiLU())
        self.heads = nn.ModuleList(nn.Linear(2 * settings.features, count) for count in HEADS)

    def features(self, frames_BPHW3: Tensor) -> Tensor:
        """Return features [B, 2 F] of bytes."""
        b, p = frames_BPHW3.shape[:2]
        x = frames_BPHW3.flatten(0, 1).permute(0, 3, 1, 2).float().div(127.5).sub(1)
        x = self.layers(x).unflatten(0, (b, p))
        return torch.cat([x.amax(dim=(1, 3, 4)), x.mean(dim=(1, 3, 4))], dim=1)

    def forward(self, frames_BPHW3: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logits of kinds, of colours and of sizes."""
        features = self.features(frames_BPHW3)
        kinds, colors, sizes = (head(features) for head in self.heads)
        return kinds, colors, sizes


def picked(video_THW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the frames [P, H, W, 3] of a clip that are looked at."""
    return video_THW3[[round(share * (len(video_THW3) - 1)) for share in PICKED]]


def labels_of(entries: Sequence[Entry]) -> tuple[Tensor, Tensor, Tensor]:
    """Return which kinds and which colours are there, and the size of a single thing (-1: not said)."""
    kinds, colors = torch.zeros(len(entries), HEADS[0]), torch.zeros(len(entries), HEADS[1])
    sizes = torch.full((len(entries),), -1)
    for row, entry in enumerate(entries):
        things = named_things(entry.caption)
        for thing in things:
            kinds[row, NAMED_KINDS.index(thing.kind)] = 1
            colors[row, NAMED_COLORS.index(thing.color)] = 1
        if len(things) == 1 and things[0].size:
            sizes[row] = SIZES.index(things[0].size)
    return kinds, colors, sizes


def train_recogniser(clips: Clips, settings: RecogniserSettings) -> Recogniser:
    """Return a recogniser trained on a world's training clips, mirrored at random."""
    entries = [entry for entry in clips.split("train", at_least=5) if named_things(entry.caption)]
    frames = torch.from_numpy(np.stack([picked(clips.video(entry)) for entry in entries]))
    labels = labels_of(entries)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = Recogniser(settings)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.rate, settings.steps, pct_start=0.15)
    rng = np.random.default_rng(settings.seed)
    for _ in range(settings.steps):
        rows = torch.from_numpy(rng.integers(len(entries), size=settings.batch))
        shown = frames[rows]
        shown = shown.flip(3) if rng.random() < 0.5 else shown
        loss = _loss(model(shown), tuple(label[rows] for label in labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def _loss(made: tuple[Tensor, Tensor, Tensor], wanted: tuple[Tensor, ...]) -> Tensor:
    several = sum(functional.binary_cross_entropy_with_logits(m, w) for m, w in zip(made[:2], wanted[:2], strict=True))
    said = wanted[2] >= 0
    size = functional.cross_entropy(made[2][said], wanted[2][said]) if said.any() else made[2].sum() * 0
    return several + 0.2 * size


@dataclass(frozen=True)
class Recognised:
    """What is seen in clips: features [B, 2 F], logits of kinds and colours, the most likely size."""

    features: NDArray[np.float64]
    kinds: NDArray[np.float64]
    colors: NDArray[np.float64]
    sizes: NDArray[np.int64]


@torch.no_grad()
def recognise(model: Recogniser, videos: Sequence[NDArray[np.uint8]]) -> Recognised:
    """Look at clips of at least one frame each."""
    frames = torch.from_numpy(np.stack([picked(video) for video in videos]))
    features = torch.cat([model.features(part) for part in frames.split(64)])
    kinds, colors, sizes = (head(features).double().numpy() for head in model.heads)
    return Recognised(features.double().numpy(), kinds, colors, sizes.argmax(1))


def shares_recognised(seen: Recognised, captions: Sequence[str]) -> dict[str, float]:
    """Return in which share of clips the named kind, colour and size of a single thing, and the colours of two, are found."""
    hits: dict[str, list[bool]] = {"named_kind": [], "named_size": [], "both_kinds": [], "both_colors": []}
    for row, caption in enumerate(captions):
        things = named_things(caption)
        kinds, colors = {thing.kind for thing in things}, {thing.color for thing in things}
        if len(things) == 1:
            hits["named_kind"].append(NAMED_KINDS[int(seen.kinds[row].argmax())] in kinds)
            if things[0].size:
                hits["named_size"].append(SIZES[int(seen.sizes[row])] == things[0].size)
        elif len(things) == 2:
            hits["both_kinds"].append({NAMED_KINDS[i] for i in np.argsort(seen.kinds[row])[-len(kinds) :]} == kinds)
            hits["both_colors"].append({NAMED_COLORS[i] for i in np.argsort(seen.colors[row])[-len(colors) :]} == colors)
    return {f"{name}_of_{len(found)}": round(float(np.mean(found)), 3) for name, found in hits.items() if found}


def frechet(a_NF: NDArray[np.float64], b_NF: NDArray[np.float64]) -> float:
    """Return the Fréchet distance of two sets of features as normal distributions."""
    covariances = [np.cov(part, rowvar=False) + 1e-6 * np.eye(part.shape[1]) for part in (a_NF, b_NF)]
    root = np.real(sqrtm(covariances[0] @ covariances[1]))
    return float(np.square(a_NF.mean(0) - b_NF.mean(0)).sum() + np.trace(covariances[0] + covariances[1] - 2 * root))
