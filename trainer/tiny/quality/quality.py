"""How good the shipped folder is: reconstruction, and whether generated clips show the colour and motion asked for.

The same measures are taken of rendered clips with captions of the same kind: what they read there is their own ceiling.

Shapes: T frames, H rows, W columns, 3 channels (RGB).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import WanPipeline
from numpy.typing import NDArray
from scipy.stats import spearmanr

from scenes.arrays import Bytes
from scenes.axes import AXES
from scenes.control_axis import Reading
from scenes.palette import BACKGROUNDS, COLORS, NEUTRALS, lab
from trainer.tiny.quality.colors import both_colors, color_is, linear_light
from trainer.tiny.quality.found import thing_masks
from trainer.tiny.quality.outline import outline_overlap
from trainer.tiny.quality.recogniser import Recogniser, frechet, named_things, recognise, shares_recognised
from trainer.tiny.shared.clips import Clips, Entry
from trainer.tiny.shared.config import FPS, HEIGHT, WIDTH, TransformerSettings
from trainer.tiny.transformer.latents import write_json
from trainer.tiny.vae.vae_stage import psnr_of, reconstruct

HEADINGS = {
    "from left to right": (1.0, 0.0),
    "towards the upper right": (1.0, -1.0),
    "upwards": (0.0, -1.0),
    "towards the upper left": (-1.0, -1.0),
    "from right to left": (-1.0, 0.0),
    "towards the lower left": (-1.0, 1.0),
    "downwards": (0.0, 1.0),
    "towards the lower right": (1.0, 1.0),
}
KINDS = ("sphere", "cube", "cylinder", "cone", "torus", "star prism", "pyramid")
SIZES = ("small", "medium", "large")
PLAIN_COLORS = ("red", "yellow", "green", "blue", "magenta", "orange", "cyan", "purple")
LEAST_SHIFT_PX, WIDEST_RAD = 4.0, math.pi / 4
LEAST_PAIRS = 5


@dataclass(frozen=True)
class QualityPrompt:
    """A caption of one moving thing, and what it says."""

    text: str
    color: str
    heading: str
    background: str


@dataclass(frozen=True)
class Seen:
    """What is seen in one clip."""

    found: bool
    color: bool
    heading: bool
    flicker: float


def drawn_prompts(count: int, seed: int = 0) -> list[QualityPrompt]:
    """Return captions in the world's words that no clip of it was asked for: colour, kind, heading and backdrop at random."""
    rng = np.random.default_rng(seed)
    colors = [name for name in COLORS if name not in NEUTRALS]
    prompts = []
    for index in range(count):
        heading = list(HEADINGS)[index % len(HEADINGS)]
        background = str(rng.choice([name for name in BACKGROUNDS if name.split()[-1] in ("grey", "slate", "ivory", "blue")]))
        behind = lab((np.asarray(BACKGROUNDS[background].bottom) + np.asarray(BACKGROUNDS[background].top)) / 2)
        plain = [name for name in colors if float(np.linalg.norm(lab(COLORS[name]) - behind)) > 45]
        color, kind, size = str(rng.choice(plain)), str(rng.choice(KINDS)), SIZES[index % len(SIZES)]
        text = f"A {size} {color} {kind} moves {heading} in front of {_article(background)} backdrop."
        prompts.append(QualityPrompt(text, color, heading, background))
    return prompts


def drawn_pairs(count: int, seed: int = 0) -> list[str]:
    """Return captions of two things beside each other, of different kinds and of colours that are told apart plainly."""
    rng = np.random.default_rng((seed, 1))
    captions = []
    for index in range(count):
        left, right = (str(kind) for kind in rng.choice(KINDS, size=2, replace=False))
        one, other = (str(color) for color in rng.choice(PLAIN_COLORS, size=2, replace=False))
        backdrop = ("dark grey", "light grey", "dark slate", "ivory")[index % 4]
        behind = f"in front of {_article(backdrop)} backdrop"
        captions.append(f"A medium {one} {left} on the left and a medium {other} {right} on the right, {behind}.")
    return captions


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def look(frames_THW3: Bytes, prompt: QualityPrompt) -> Seen:
    """Measure a clip against its caption; under any cast, which the named backdrop tells."""
    frames, thing_THW = frames_THW3.astype(np.float64), thing_masks(frames_THW3)
    still = ~(thing_THW[1:] | thing_THW[:-1])
    change = np.abs(np.diff(frames, axis=0)).mean(-1)
    flicker = float(change[still].mean()) if still.any() else float("inf")
    if thing_THW.sum() < 12 * len(frames):
        return Seen(False, False, False, flicker)
    return Seen(True, _color_is(frames_THW3, thing_THW, prompt), _moves_so(thing_THW, prompt), flicker)


def _color_is(frames_THW3: Bytes, thing_THW: NDArray[np.bool_], prompt: QualityPrompt) -> bool:
    linear = linear_light(frames_THW3)
    return color_is(linear[thing_THW], linear[~thing_THW], prompt.background, prompt.color)


def _moves_so(thing_THW: NDArray[np.bool_], prompt: QualityPrompt) -> bool:
    rows, columns = np.mgrid[: thing_THW.shape[1], : thing_THW.shape[2]]
    places = [(columns[mask].mean(), rows[mask].mean()) for mask in thing_THW if mask.sum() >= 8]
    if len(places) < 3:
        return False
    times = np.arange(len(places))
    x, y = (float(np.polyfit(times, [place[axis] for place in places], 1)[0]) * (len(places) - 1) for axis in (0, 1))
    wanted = HEADINGS[prompt.heading]
    turn = math.atan2(y, x) - math.atan2(wanted[1], wanted[0])
    return math.hypot(x, y) >= LEAST_SHIFT_PX and abs((turn + math.pi) % (2 * math.pi) - math.pi) <= WIDEST_RAD


def generate(pipe: WanPipeline, captions: Sequence[str], frames: int, seed: int, settings: TransformerSettings) -> Bytes:
    """Return videos uint8 [B, T, H, W, 3] of captions by plain diffusers."""
    made = pipe(
        prompt=list(captions),
        height=HEIGHT,
        width=WIDTH,
        num_frames=frames,
        num_inference_steps=settings.sampling_steps,
        guidance_scale=settings.guidance,
        generator=torch.Generator().manual_seed(seed),
        max_sequence_length=min(settings.padded),
        output_type="np",
    ).frames
    return np.rint(np.asarray(made) * 255).astype(np.uint8)


def share(seen: Sequence[Seen]) -> dict[str, float]:
    """Return the shares of clips that show what was asked for, and the median flicker."""
    return {
        "thing_found": float(np.mean([one.found for one in seen])),
        "named_color": float(np.mean([one.color for one in seen])),
        "named_heading": float(np.mean([one.heading for one in seen])),
        "flicker_levels": float(np.median([one.flicker for one in seen])),
    }


def rendered_ceiling(clips: Clips) -> dict[str, float]:
    """Return the same shares of rendered held-out clips whose captions name one moving thing."""
    seen = []
    for entry in (*clips.split("validation"), *clips.split("test")):
        prompt = read_prompt(entry.caption)
        if prompt is not None and entry.frames >= 5:
            seen.append(look(clips.video(entry), prompt))
    return {"clips": float(len(seen)), **(share(seen) if seen else {})}


def read_prompt(caption: str) -> QualityPrompt | None:
    """Return what a caption says if it speaks of one moving thing of a hue before a plain backdrop."""
    lower = caption.lower()
    headings = [heading for heading in HEADINGS if heading in lower]
    backgrounds = [name for name in BACKGROUNDS if f"{name} back" in lower]
    if len(headings) != 1 or len(backgrounds) != 1 or any(word in lower for word in (" and ", " on a", "lights", "another")):
        return None
    words = lower.replace(backgrounds[0], "").replace(",", " ").replace(".", " ").split()
    colors = [name for name in COLORS if name in words]
    if len(colors) != 1 or colors[0] in NEUTRALS:
        return None
    return QualityPrompt(caption, colors[0], headings[0], backgrounds[0])


def read_axes(videos: Sequence[Bytes]) -> dict[str, list[float | None]]:
    """Return what the engine's probes read in each video: kelvin, exposure seconds, the widest blur disc in pixels, or None.

    Videos are sRGB frames `[T, H, W, 3]`.
    """
    return {name: [_read(axis.probe(video, FPS)) for video in videos] for name, axis in AXES.items()}


def _read(reading: Reading) -> float | None:
    if reading.confidence <= 0:
        return None
    if reading.value is not None:
        return float(reading.value)
    return max((detection.size_px for detection in reading.detections), default=None)


def kept(before: Sequence[float | None], after: Sequence[float | None]) -> dict[str, float | None]:
    """Return how readings survive the autoencoder: how many were read before, how many of them after, and Spearman's rank.

    The PSNR does not tell: blur is edges, and edges are few pixels. A rank of fewer than five pairs is None.
    """
    pairs = [(x, y) for x, y in zip(before, after, strict=True) if x is not None and y is not None]
    rank = float(spearmanr(*zip(*pairs, strict=True)).statistic) if len(pairs) >= LEAST_PAIRS else None
    return {"read_before": float(sum(x is not None for x in before)), "read_in_both": float(len(pairs)), "rank": rank}


def spread(values: Sequence[float | None]) -> dict[str, float]:
    """Return how many readings there were and, if any, their 10th, 50th and 90th percentiles."""
    found = [value for value in values if value is not None]
    if not found:
        return {"read": 0.0}
    low, middle, high = np.percentile(found, (10, 50, 90))
    return {"read": float(len(found)), "p10": float(low), "p50": float(middle), "p90": float(high)}


def measure_things(
    generated: Sequence[Bytes],
    prompts: Sequence[QualityPrompt],
    pairs: Sequence[Bytes],
    pair_captions: Sequence[str],
    model: Recogniser,
) -> dict[str, Any]:
    """Return what a recogniser sees of single things and of pairs, and how steady the single ones' outlines are.

    Videos are sRGB frames `[T, H, W, 3]`.
    """
    single, both = recognise(model, generated), recognise(model, pairs)
    overlaps = [found for video in generated if (found := outline_overlap(thing_masks(video))) is not None]
    return {
        "single": shares_recognised(single, [prompt.text for prompt in prompts]),
        "pairs": {**shares_recognised(both, pair_captions), **share_of_pairs(pairs, pair_captions)},
        "outline_overlap": float(np.median(overlaps)) if overlaps else None,
        "outlines_seen": len(overlaps),
    }


def share_of_pairs(videos: Sequence[Bytes], captions: Sequence[str]) -> dict[str, float]:
    """Return in which share of clips both named things are there with their colours. Videos are sRGB frames `[T, H, W, 3]`."""
    told = [both_colors(video, caption) for video, caption in zip(videos, captions, strict=True)]
    found = [hit for hit in told if hit is not None]
    return {f"both_colors_of_{len(found)}": round(float(np.mean(found)), 3)} if found else {}


def recognised_ceiling(clips: Clips, model: Recogniser) -> dict[str, Any]:
    """Return the same of rendered held-out clips: single things as prompts name them, and any two."""
    held = [entry for name in ("validation", "test") for entry in clips.split(name, at_least=9) if named_things(entry.caption)]
    alone = [entry for entry in held if read_prompt(entry.caption) and named_things(entry.caption)[0].kind in KINDS]
    two = [entry for entry in held if len(named_things(entry.caption)) == 2]
    single, pairs = ([clips.video(entry)[:9] for entry in chosen] for chosen in (alone, two))
    captions = [entry.caption for entry in two]
    overlaps = [found for video in single if (found := outline_overlap(thing_masks(video))) is not None]
    return {
        "single": shares_recognised(recognise(model, single), [entry.caption for entry in alone]),
        "pairs": {**shares_recognised(recognise(model, pairs), captions), **share_of_pairs(pairs, captions)},
        "outline_overlap": float(np.median(overlaps)) if overlaps else None,
        "outlines_seen": len(overlaps),
    }


def feature_distances(
    clips: Clips, captions_of: Sequence[Entry], generated: Sequence[Bytes], model: Recogniser
) -> dict[str, float]:
    """Return the Fréchet distance of generated clips to the rendered ones of their captions, and that of two rendered sets.

    Videos are sRGB frames `[T, H, W, 3]`.
    """
    count = len(generated)
    train = clips.split("train", at_least=9)[: 2 * count]
    halves = [recognise(model, [clips.video(entry)[:9] for entry in part]).features for part in (train[::2], train[1::2])]
    rendered = recognise(model, [clips.video(entry)[:9] for entry in captions_of]).features
    between, to_generated = frechet(*halves), frechet(rendered, recognise(model, generated).features)
    return {"rendered_halves": between, "generated": to_generated, "ratio": to_generated / between, "clips": float(count)}


def generate_all(pipe: WanPipeline, captions: Sequence[str], settings: TransformerSettings, seed: int = 0) -> list[Bytes]:
    """Return videos of 9 frames, twelve at a time."""
    starts = range(0, len(captions), 12)
    return [video for i in starts for video in generate(pipe, captions[i : i + 12], 9, seed + i, settings)]


def measure_quality(
    model: Path, clips: Clips, path: Path, recogniser: Recogniser, prompts: int = 96, held_out: int = 96
) -> dict[str, Any]:
    """Measure the pipeline of a folder, write the measures as JSON and return them."""
    settings = TransformerSettings()
    pipe = WanPipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    asked, pairs = drawn_prompts(prompts), drawn_pairs(prompts // 3)
    videos = generate_all(pipe, [one.text for one in asked], settings)
    both = generate_all(pipe, pairs, settings)
    held = [entry for name in ("test", "validation") for entry in clips.split(name, at_least=9)][:held_out]
    psnr = psnr_of(pipe.vae, clips, tuple(held[:64]))
    rendered = read_axes([clips.video(entry)[:9] for entry in held])
    rebuilt = read_axes([reconstruct(pipe.vae, clips.video(entry)[:9]) for entry in held])
    same = generate_all(pipe, [entry.caption for entry in held], settings, 1)
    generated = read_axes(same)
    measured = {
        "vae_psnr_db": {"mean": float(np.mean(psnr)), "p10": float(np.percentile(psnr, 10)), "clips": len(psnr)},
        "generated": {"prompts": len(asked), **share([look(v, p) for v, p in zip(videos, asked, strict=True)])},
        "generated_things": measure_things(videos, asked, both, pairs, recogniser),
        "feature_distance": feature_distances(clips, held, same, recogniser),
        "rendered_ceiling": rendered_ceiling(clips),
        "rendered_things": recognised_ceiling(clips, recogniser),
        "probes_through_autoencoder": {name: kept(rendered[name], rebuilt[name]) for name in AXES},
        "probes_on_rendered": {name: spread(values) for name, values in rendered.items()},
        "probes_on_generated": {name: spread(values) for name, values in generated.items()},
    }
    write_json(path, measured)
    return measured
