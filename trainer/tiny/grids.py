"""Pictures of the shipped backbone for docs/: `python -m trainer.tiny.grids --work out/tiny`."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from diffusers import WanPipeline
from PIL import Image, ImageDraw

from scenes.arrays import Bytes
from trainer.tiny.quality.quality import drawn_prompts, generate
from trainer.tiny.shared.clips import Clips, load_clips
from trainer.tiny.shared.config import SHIPPED, TransformerSettings
from trainer.tiny.vae.vae_stage import reconstruct
from trainer.training.callbacks.metrics import FILE, read_events

SCALE, CAPTION_PX, GAP_PX = 2, 14, 6


def captioned(videos: list[tuple[str, Bytes]], columns: int, step: int) -> Image.Image:
    """Return videos (uint8 `[T, H, W, 3]` each) as strips of every `step`-th frame under their captions, in `columns`."""
    strips = [(text, np.concatenate(list(video[::step]), axis=1).repeat(SCALE, 0).repeat(SCALE, 1)) for text, video in videos]
    height, width = strips[0][1].shape[:2]
    rows = -(-len(strips) // columns)
    sheet = Image.new("RGB", (columns * (width + GAP_PX), rows * (height + CAPTION_PX + GAP_PX)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (text, strip) in enumerate(strips):
        x, y = (index % columns) * (width + GAP_PX), (index // columns) * (height + CAPTION_PX + GAP_PX)
        draw.text((x + 2, y + 1), text, fill="black")
        sheet.paste(Image.fromarray(strip), (x, y + CAPTION_PX))
    return sheet


def reconstruction_grid(pipe: WanPipeline, clips: Clips, count: int = 8) -> Image.Image:
    """Return held-out clips beside what the autoencoder makes of them."""
    held = [entry for entry in clips.split("test") if entry.frames >= 9][:count]
    pairs = []
    for entry in held:
        frames = clips.video(entry)
        pairs += [("rendered", frames[:9]), ("reconstructed", reconstruct(pipe.vae, frames)[:9])]
    return captioned(pairs, columns=2, step=2)


def sample_grid(pipe: WanPipeline, settings: TransformerSettings, count: int = 16) -> Image.Image:
    """Return one sample for each of some prompts that the world does not hold."""
    prompts = [prompt.text for prompt in drawn_prompts(count, seed=1)]
    return captioned(list(zip(prompts, generate(pipe, prompts, 9, 0, settings), strict=True)), columns=2, step=2)


def spread_grid(pipe: WanPipeline, settings: TransformerSettings, count: int = 16) -> Image.Image:
    """Return samples of one prompt from several seeds: what it leaves unsaid varies."""
    prompt = "A large red sphere moves quickly from left to right in front of a dark grey backdrop."
    return captioned([(f"seed {i}", generate(pipe, [prompt], 9, i, settings)[0]) for i in range(count)], columns=2, step=2)


def loss_plot(work: Path, path: Path) -> None:
    """Draw the autoencoder's and the transformer's curves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    panels = (
        (left, "vae", (("mse", "autoencoder: squared error (stills, then clips)"),)),
        (right, "transformer", (("loss", "transformer: loss"),)),
    )
    for axes, stage, curves in panels:
        events = read_events(work / stage / FILE)
        for key, label in (*curves, ("validation_loss", "held out, averaged weights")):
            points = [(event.step, event.values[key]) for event in events if key in event.values]
            if points:
                axes.plot(*zip(*points, strict=True), label=label)
        axes.set(xlabel="step", yscale="log")
        axes.legend()
    figure.savefig(path, dpi=90)


def main(arguments: list[str] | None = None) -> None:
    """Write docs/tiny-*.png."""
    parser = argparse.ArgumentParser(prog="python -m trainer.tiny.grids", description=__doc__)
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--work", type=Path, default=Path("out/tiny"))
    parser.add_argument("--out", type=Path, default=Path("docs"))
    given = parser.parse_args(arguments)
    pipe, settings = WanPipeline.from_pretrained(given.model), TransformerSettings()
    pipe.set_progress_bar_config(disable=True)
    reconstruction_grid(pipe, load_clips(given.work / "clips")).save(given.out / "tiny-reconstruction.png")
    sample_grid(pipe, settings).save(given.out / "tiny-samples.png")
    spread_grid(pipe, settings).save(given.out / "tiny-spread.png")
    loss_plot(given.work, given.out / "tiny-curves.png")


if __name__ == "__main__":
    main()
