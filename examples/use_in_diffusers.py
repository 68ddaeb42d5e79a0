"""Use an adapter in diffusers: a weak and a strong value from the same noise, and the backbone without the adapter.

python examples/use_in_diffusers.py Wan-AI/Wan2.1-T2V-1.3B-Diffusers runs/shutter/adapter "a cyclist passes a brick wall"
"""

from __future__ import annotations

import argparse
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import torch
from diffusers import UniPCMultistepScheduler

from trainer.pipelines.controlled_wan import ControlledWan


def main() -> None:
    """Write `weak.mp4` and `strong.mp4` of the adapter's first axis, and `backbone.mp4` at strength 0."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("backbone")
    given.add_argument("adapter")
    given.add_argument("prompt")
    given.add_argument("--out", type=Path, default=Path("videos"))
    for name, usual in (("width", 832), ("height", 480), ("frames", 81), ("steps", 30)):
        given.add_argument(f"--{name}", type=int, default=usual)
    words = given.parse_args()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipe = ControlledWan.from_pretrained(words.backbone, words.adapter).to(device)
    pipe.scheduler = UniPCMultistepScheduler.from_config(pipe.scheduler.config)  # any of diffusers' own
    options = {"width": words.width, "height": words.height, "num_frames": words.frames, "num_inference_steps": words.steps}
    axis = pipe.axes[0]
    words.out.mkdir(parents=True, exist_ok=True)
    for name, control, strength in (("weak", -1.0, 1.0), ("strong", 1.0, 1.0), ("backbone", 0.0, 0.0)):
        noise = torch.Generator(device).manual_seed(0)
        made = pipe(words.prompt, control={axis.name: control}, strength=strength, generator=noise, **options)
        frames_THW3 = (np.asarray(made.frames[0]) * 255).round().astype(np.uint8)
        imageio.imwrite(words.out / f"{name}.mp4", frames_THW3, fps=16, codec="libx264", plugin="pyav")
        print(f"{name}: {axis.name} {axis.format(control)}, strength {strength:g}")


if __name__ == "__main__":
    main()
