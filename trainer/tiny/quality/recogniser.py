"""A small network that says what is in a clip: the kinds of its things, and the size of a single one.

It looks at things cut out where the pixels show them, in generated clips as in rendered ones. It is trained on rendered clips
alone, so that what it says of generated ones is a measure. Its accuracy on held-out rendered clips stands beside; its features
carry a Fréchet distance. A network that saw whole frames knew a third of kinds after 350 steps: it has to learn where to look.

Shapes: B clips or cut-outs, T frames, H rows, W columns, 3 channels (RGB), S the side of a cut-out, F features, K kinds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from torch import Tensor, nn
from torch.nn import functional

from scenes.arrays import Bytes
from scenes.palette import COLORS
from scenes.primitives import SOLID_KINDS, spoken
from trainer.tiny.quality.found import MARGIN, SIDE, Box, cut_out, longer_side, overlap, parts_of, thing_masks, touches_border
from trainer.tiny.shared.clips import Clips, Entry
from trainer.tiny.shared.config import Phase, RecogniserSettings

SIZES = ("small", "medium", "large")
NAMED_COLORS, NAMED_KINDS = tuple(COLORS), tuple(spoken[kind] for kind in SOLID_KINDS)
KIND_WORDS = "|".join(sorted(NAMED_KINDS, key=len, reverse=True))  # an icosphere before the sphere in it
THING = re.compile(rf"(?:\b({'|'.join(SIZES)}) )?\b({'|'.join(NAMED_COLORS)}) ({KIND_WORDS}|tori)(?:s|es)?\b")
PICKED = (0.2, 0.35, 0.5, 0.65, 0.8)  # of a clip: things come from beyond the picture and leave it
LIES_THERE = 0.5  # overlap of a part's box with a thing's
NOISE_LEVELS = 8.0  # of 255, at most, in training


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
    """Convolutions on cut-outs of things and two heads: the kind, and the size, for which the box's side counts too."""

    def __init__(self, settings: RecogniserSettings) -> None:
        super().__init__()
        w = settings.width
        layers: list[nn.Module] = []
        for into, out, stride in ((3, w, 1), (w, 2 * w, 2), (2 * w, 3 * w, 2), (3 * w, 4 * w, 2)):
            layers += [nn.Conv2d(into, out, 3, stride=stride, padding=1), nn.GroupNorm(4, out), nn.SiLU()]
        cells = (SIDE // 8) ** 2
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * w * cells, settings.features), nn.SiLU())
        self.kind = nn.Linear(settings.features, len(NAMED_KINDS))
        self.size = nn.Linear(settings.features + 1, len(SIZES))

    def features(self, cut_BSS3: Tensor) -> Tensor:
        """Return features [B, F] of bytes; brightness, cast and contrast are taken out first."""
        x = cut_BSS3.permute(0, 3, 1, 2).float()
        x = x - x.mean(dim=(2, 3), keepdim=True)
        return torch.as_tensor(self.layers(x / (x.std(dim=(1, 2, 3), keepdim=True) + 4.0)))

    def forward(self, cut_BSS3: Tensor, sides_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of kinds and of sizes; sides are those of the boxes, pixels: the words change at 18 and 28."""
        features = self.features(cut_BSS3)
        return self.kind(features), self.size(torch.cat([features, 4.6 * sides_B.div(22).log()[:, None]], dim=1))


@dataclass(frozen=True)
class Taught:
    """Cut-outs of things [B, S, S, 3], the sides of their boxes, their kinds and their sizes (-1: not said)."""

    cuts: Tensor
    sides: Tensor
    kinds: Tensor
    sizes: Tensor


def picked(video_THW3: Bytes) -> list[int]:
    """Return which frames of a clip are looked at."""
    return sorted({round(share * (len(video_THW3) - 1)) for share in PICKED})


def cut_things(clips: Clips, entries: Sequence[Entry], rng: np.random.Generator | None = None) -> Taught:
    """Return what is found of the captions' things: parts that lie where a thing is, and nothing else.

    With `rng`, twice, each a little off its place and size.
    """
    cuts, sides, kinds, sizes = [], [], [], []
    for entry in entries:
        video = clips.video(entry)
        masks, named = thing_masks(video), named_things(entry.caption)
        for frame in picked(video):
            for box, kind, size in _told(parts_of(masks[frame]), entry, named, frame):
                for _ in range(1 if rng is None else 2):
                    off = {"margin": MARGIN} if rng is None else {"margin": MARGIN * float(rng.uniform(0.85, 1.2))}
                    shift = (0.0, 0.0) if rng is None else tuple(rng.uniform(-0.08, 0.08, 2))
                    cuts.append(cut_out(video[frame], box, shift=(float(shift[0]), float(shift[1])), **off))
                    sides.append(longer_side(box))
                    kinds.append(NAMED_KINDS.index(kind))
                    sizes.append(SIZES.index(size) if size and not touches_border(box, video[frame]) else -1)
    return Taught(torch.from_numpy(np.stack(cuts)), torch.tensor(sides), torch.tensor(kinds), torch.tensor(sizes))


def _told(
    parts: Sequence[tuple[Box, object]], entry: Entry, named: Sequence[Named], frame: int
) -> Iterator[tuple[Box, str, str]]:
    """Yield boxes with kind and size: of parts that lie where a thing is, or of the largest part where only one is named."""
    if not entry.things:
        if len(named) == 1 and parts:
            yield parts[0][0], named[0].kind, named[0].size
        return
    for box, _ in parts:
        lying = [thing for thing in entry.things if overlap(box, thing["boxes"][frame]) > LIES_THERE]
        if len(lying) == 1:
            kind = lying[0]["kind"]
            sizes = {one.size for one in named if (one.kind, one.color) == (kind, lying[0]["color"])}
            yield box, kind, sizes.pop() if len(sizes) == 1 else ""


class RecogniserStage:
    """Trains a recogniser on a world's training clips, mirrored at random and under faint noise."""

    def __init__(self, settings: RecogniserSettings, clips: Clips) -> None:
        self.phases: tuple[Phase, ...] = (Phase(frames=1, batch=settings.batch, steps=settings.steps),)
        self.taught = cut_things(clips, clips.split("train"), np.random.default_rng(settings.seed))
        held = clips.split("validation")
        self.held_out = cut_things(clips, held) if held else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.module: nn.Module = Recogniser(settings)

    def batch(self, phase: Phase, rng: np.random.Generator) -> Mapping[str, Tensor]:
        """Return cut-outs [B, S, S, 3], sides, kinds and sizes [B]."""
        taught, rows = self.taught, torch.from_numpy(rng.integers(len(self.taught.cuts), size=phase.batch))
        shown = taught.cuts[rows].float()
        mirrored = torch.from_numpy(rng.random(len(rows)) < 0.5)
        shown = torch.where(mirrored[:, None, None, None], shown.flip(2), shown)
        noise = torch.from_numpy(rng.standard_normal(tuple(shown.shape), dtype=np.float32))
        shown = shown + float(rng.uniform(0, NOISE_LEVELS)) * noise
        return {"shown": shown, "sides": taught.sides[rows], "kinds": taught.kinds[rows], "sizes": taught.sizes[rows]}

    def loss(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cross-entropy of kinds and, where they are said, of sizes."""
        kinds, sizes = self.module(batch["shown"], batch["sides"])
        loss, said = functional.cross_entropy(kinds, batch["kinds"], label_smoothing=0.05), batch["sizes"] >= 0
        if said.any():
            loss = loss + functional.cross_entropy(sizes[said], batch["sizes"][said])
        return loss, {}

    def validate(self, step: int, folder: Path) -> dict[str, float]:
        """Return the share of held-out cut-outs whose kind is told; nothing where no clip is held out."""
        if self.held_out is None:
            return {}
        kinds, _ = self.module(self.held_out.cuts, self.held_out.sides)
        return {"kinds_told": float((kinds.argmax(1) == self.held_out.kinds).float().mean())}


@dataclass(frozen=True)
class Recognised:
    """What is seen in clips: mean features [B, F], how much each kind is there [B, K], the size of the largest thing [B].

    A clip in which nothing is found has zeros, and the size -1.
    """

    features: NDArray[np.float64]
    kinds: NDArray[np.float64]
    sizes: NDArray[np.int64]


@torch.no_grad()
def recognise(model: Recogniser, videos: Sequence[Bytes], things: int = 2) -> Recognised:
    """Look at the largest things of each clip, in a few of its frames; each kind counts by the thing that is most like it.

    Videos are sRGB frames `[T, H, W, 3]`.
    """
    features = np.zeros((len(videos), model.kind.in_features))
    kinds, sizes = np.zeros((len(videos), len(NAMED_KINDS))), np.full(len(videos), -1)
    for row, video in enumerate(videos):
        masks = thing_masks(video)
        largest_of = {frame: parts_of(masks[frame])[:things] for frame in picked(video)}
        found = [(frame, place, box) for frame, parts in largest_of.items() for place, (box, _) in enumerate(parts)]
        if not found:
            continue
        cuts = torch.from_numpy(np.stack([cut_out(video[frame], box) for frame, _, box in found]))
        logits, size_logits = model(cuts, torch.tensor([longer_side(box) for _, _, box in found]))
        features[row] = model.features(cuts).double().numpy().mean(0)
        shares = logits.softmax(1).double().numpy()
        frames = np.array([frame for frame, _, _ in found])
        kinds[row] = np.mean([shares[frames == frame].max(0) for frame in np.unique(frames)], axis=0)
        largest = torch.tensor([place == 0 for _, place, _ in found])
        whole = torch.tensor([not touches_border(box, video[frame]) for frame, _, box in found]) & largest
        sizes[row] = int(size_logits[whole if whole.any() else largest].log_softmax(1).mean(0).argmax())
    return Recognised(features, kinds, sizes)


def shares_recognised(seen: Recognised, captions: Sequence[str]) -> dict[str, float]:
    """Return in which share of clips the named kind and size of a single thing, and the kinds of two, are found."""
    hits: dict[str, list[bool]] = {"named_kind": [], "named_size": [], "both_kinds": []}
    for row, caption in enumerate(captions):
        things = named_things(caption)
        kinds = {thing.kind for thing in things}
        if len(things) == 1:
            hits["named_kind"].append(seen.kinds[row].any() and NAMED_KINDS[int(seen.kinds[row].argmax())] in kinds)
            if things[0].size:
                hits["named_size"].append(int(seen.sizes[row]) == SIZES.index(things[0].size))
        elif len(things) == 2:
            hits["both_kinds"].append({NAMED_KINDS[i] for i in np.argsort(seen.kinds[row])[-len(kinds) :]} == kinds)
    return {f"{name}_of_{len(found)}": round(float(np.mean(found)), 3) for name, found in hits.items() if found}


def frechet(a_NF: NDArray[np.float64], b_NF: NDArray[np.float64]) -> float:
    """Return the Fréchet distance of two sets of features as normal distributions."""
    covariances = [np.cov(part, rowvar=False) + 1e-6 * np.eye(part.shape[1]) for part in (a_NF, b_NF)]
    root = np.real(sqrtm(covariances[0] @ covariances[1]))
    return float(np.square(a_NF.mean(0) - b_NF.mean(0)).sum() + np.trace(covariances[0] + covariances[1] - 2 * root))
