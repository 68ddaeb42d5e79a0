"""Does a generated video follow a control that changes over it? A fade per prompt, read frame by frame.

For each prompt, from the same noise: a video at c = 0, one whose control goes from -1 to 1, and one that goes from 1 to -1.
Every frame of the two is read by the axis's probe against the same frame of the first one. Reported: the rank correlation over
frames of the reading with the command (median over prompts), the slope of reading on command, and the rank of a video with one
constant control, which must not follow anything. Writes a JSON file, and a picture of four prompts: rising, neutral, falling.

    python benchmarks/curves.py --adapter ADAPTER --axis temperature --recipe examples/tiny_temperature.toml

Shapes: T frames, H rows, W columns, 3 channels.
"""

from __future__ import annotations

import argparse
import json
import platform
import tomllib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track

from generator.io.atomic import write_atomic
from scenes.arrays import Bytes
from scenes.axes import AXES
from scenes.errors import InputError
from trainer.control.curve import Control, ControlCurve
from trainer.generation.sampler import Sampling
from trainer.methods.control.generate import sample
from trainer.pipelines.controlled_wan import ControlledWan
from trainer.probing.statistics import rank_correlation

FPS = 16
BIGGER = 2  # times the picture's pixels


def fades(frames: int) -> dict[str, Control]:
    """Return the controls that are compared, by name."""
    end_s = (frames - 1) / FPS
    return {
        "neutral": 0.0,
        "rising": ControlCurve(((0.0, -1.0), (end_s, 1.0))),
        "falling": ControlCurve(((0.0, 1.0), (end_s, -1.0))),
        "constant": 0.5,
    }


def read_frames(axis_name: str, frames_THW3: Bytes, reference_THW3: Bytes) -> list[float | None]:
    """Return the distance of every frame from the same frame of the reference, in the axis's unit of errors."""
    axis = AXES[axis_name]
    return [axis.relative(frames_THW3[t : t + 1], reference_THW3[t : t + 1], FPS) for t in range(len(frames_THW3))]


def trend(read: list[float | None], commanded: np.ndarray) -> dict[str, float | int | None]:
    """Return rank correlation and slope of the readings over the frames that could be read."""
    pairs = [(c, r) for c, r in zip(commanded, read, strict=True) if r is not None]
    if len(pairs) < 4:
        return {"read": len(pairs), "rank": None, "slope": None}
    asked, found = (np.array(part) for part in zip(*pairs, strict=True))
    slope = float(np.polyfit(asked, found, 1)[0]) if np.ptp(asked) > 0 else None
    return {"read": len(pairs), "rank": float(rank_correlation(asked, found)), "slope": slope}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--backbone", default="tiny")
    parser.add_argument("--axis", default="temperature", choices=list(AXES))
    parser.add_argument("--recipe", type=Path, required=True, help="its [evaluate] prompts are used")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--mode", default=None)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/curves.json"))
    options = parser.parse_args()
    prompts = tomllib.loads(options.recipe.read_text())["evaluate"]["prompts"][: options.prompts]
    pipe = ControlledWan.from_pretrained(options.backbone, options.adapter)
    pipe.set_progress_bar_config(disable=True)
    (axis,) = [axis for axis in pipe.axes if axis.name == options.axis]
    sampling = Sampling(
        width=options.size, height=options.size, frames=options.frames, steps=options.steps, text_tokens=pipe.text_tokens
    )
    commands = fades(options.frames)
    rows, strips = [], []
    for prompt in track(prompts, description="prompts", console=Console(stderr=True)):
        points = [{options.axis: control} for control in commands.values()]
        videos = list(sample(pipe, prompt, points, sampling=sampling, mode=options.mode, batch=len(points), fps=FPS))
        made = dict(zip(commands, videos, strict=True))
        strips.append(np.concatenate([np.concatenate(list(made[name]), axis=1) for name in ("rising", "neutral", "falling")]))
        found = {}
        for name in ("rising", "falling", "constant"):
            like = commands[name if name != "constant" else "rising"]
            assert isinstance(like, ControlCurve)
            controls = like.frame_controls(options.frames, FPS)
            neutral = axis.law.value(0.0)
            asked = np.array([axis.axis.distance(axis.law.value(c), neutral) for c in controls])
            read = read_frames(options.axis, made[name], made["neutral"])
            found[name] = {"asked": asked.tolist(), "read": read} | {"trend": trend(read, asked)}
        rows.append({"prompt": prompt, **found})
    summary = {}
    for name in ("rising", "falling", "constant"):
        trends = [row[name]["trend"] for row in rows if row[name]["trend"]["rank"] is not None]
        if not trends:
            raise InputError(f"no frame of the {name} videos could be read; try --frames, or another axis")
        summary[name] = {
            "prompts_read": len(trends),
            "rank_median": float(np.median([one["rank"] for one in trends])),
            "rank_least": float(min(one["rank"] for one in trends)),
            "slope_median": float(np.median([one["slope"] for one in trends])),
        }
    result = {
        "axis": options.axis,
        "unit": axis.axis.error_unit,
        "frames": options.frames,
        "steps": options.steps,
        "machine": f"{platform.processor() or platform.machine()}, torch {torch.__version__}",
        "summary": summary,
        "prompts": rows,
    }
    write_atomic(options.out, json.dumps(result, indent=1).encode() + b"\n")
    best = Image.fromarray(np.concatenate(strips[:4]))
    best.resize((best.width * BIGGER, best.height * BIGGER), Image.Resampling.LANCZOS).save(options.out.with_suffix(".png"))
    Console().print_json(json.dumps(summary))


if __name__ == "__main__":
    main()
