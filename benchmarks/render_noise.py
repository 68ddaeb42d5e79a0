"""Noise against cost: RMSE on active pixels (8-bit sRGB, against 1024 samples) of sampling settings, and CPU seconds a frame.

Active pixels are those that a 1-sample render misses by more than 2/255: edges, motion blur, blur discs. The bar is 3.
Run: python benchmarks/render_noise.py [--size 512] [--scenes 2] [--json noise.json]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from generator.recipe.render_settings import RenderSettings
from generator.render.scene_renderer import SceneRenderer
from scenes.axes import AXES
from scenes.families import FAMILIES, draw_scene
from scenes.palette import srgb_encode
from scenes.spec import Optics, SceneSpec, Shot

Floats = NDArray[np.float64]
ACTIVE = 2.0  # of 255
REFERENCE = RenderSettings(samples=1024, adaptive_threshold=0.0)
ONE = RenderSettings(samples=1, adaptive_threshold=0.0)
CASES = (
    ("flyby", Optics(exposure_s=1 / 400)),
    ("flyby", Optics(exposure_s=1 / 30)),
    ("depth_row", Optics(f_number=5.6)),
    ("depth_row", Optics(f_number=1.4)),
    ("tabletop", Optics()),
)
ARMS: dict[str, dict[str, float]] = {
    "default": {},
    **{f"{samples} fixed": {"samples": samples, "adaptive_threshold": 0.0} for samples in (8, 16, 32)},
    **{f"{samples} at 0.01": {"samples": samples} for samples in (20, 64, 128)},
}


def picture(scene: SceneSpec, settings: RenderSettings, optics: Optics) -> tuple[Floats, float]:
    """Return the clip in 8-bit sRGB units (unrounded) and the CPU seconds of rendering it, without building the scene."""
    renderer = SceneRenderer(scene, settings, threads=1)
    start_s = time.process_time()
    linear_THW3 = renderer.frames(optics)
    spent_s = time.process_time() - start_s
    return 255.0 * srgb_encode(np.clip(linear_THW3, 0.0, 1.0)), spent_s


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--scenes", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    shot = Shot(width=options.size, height=options.size, fps=16, frames=1)
    rows = []
    for family, optics in CASES:
        scenes = [draw_scene(FAMILIES[family], np.random.default_rng(seed), shot, _laws()) for seed in range(options.scenes)]
        truths = [picture(scene, REFERENCE, optics)[0] for scene in scenes]
        masks = [
            np.abs(picture(scene, ONE, optics)[0] - truth).max(axis=-1) > ACTIVE
            for scene, truth in zip(scenes, truths, strict=True)
        ]
        for arm, keys in ARMS.items():
            settings = RenderSettings.model_validate(keys)
            made = [picture(scene, settings, optics) for scene in scenes]
            errors = np.concatenate(
                [(frames - truth)[mask].ravel() for (frames, _), truth, mask in zip(made, truths, masks, strict=True)]
            )
            rows.append(
                {
                    "family": family,
                    "optics": optics.model_dump(exclude_none=True),
                    "active_share": float(np.mean(masks)),
                    "arm": arm,
                    "active_rmse": float(np.sqrt(np.mean(errors**2))),
                    "cpu_s_per_frame": float(np.mean([spent_s for _, spent_s in made])),
                }
            )
    _show(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


def _laws() -> dict[str, object]:
    return {name: axis.default_law for name, axis in AXES.items()}


def _show(rows: list[dict[str, object]]) -> None:
    table = Table("family", "optics", "active", "sampling", "active RMSE /255", "CPU s/frame")
    for row in rows:
        optics = " ".join(f"{name}={value:.4g}" for name, value in row["optics"].items()) or "pinhole"  # type: ignore[attr-defined]
        table.add_row(
            str(row["family"]),
            optics,
            f"{row['active_share']:.1%}",
            str(row["arm"]),
            f"{row['active_rmse']:.2f}",
            f"{row['cpu_s_per_frame']:.3f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
