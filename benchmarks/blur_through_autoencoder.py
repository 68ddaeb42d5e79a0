"""Does blur survive an autoencoder? Flat clips of one scene at seven values, read by the probes before and after.

    python benchmarks/blur_through_autoencoder.py trainer/tiny/model/vae [OTHER …]

For the axes shutter and aperture: Spearman's correlation of what is read with the value's place in the sweep, the median over
scenes; the slope of readings after against before, in stops; and the share of clips that can be read. A PSNR does not tell:
blur is edges, and edges are few pixels. An autoencoder that fails here cannot be taught these axes, nor show them.

With `--default-laws` the sweeps run over the axes' default ranges instead of those of the tiny recipes, and values whose closed
form blurs by less than a pixel are left out: nothing can show them.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from numpy.typing import NDArray
from scipy.stats import spearmanr

from generator import Dataset
from generator.versions.working.working_folder import WorkingFolder
from scenes.axes import AXES
from scenes.axes.aperture.axis import expected_discs
from scenes.control_axis import Reading
from scenes.families.rules import image_velocity_px_per_s
from scenes.spec import SceneSpec
from trainer.tiny.shared.config import FPS
from trainer.tiny.vae.vae_stage import reconstruct

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "blur_through_autoencoder.json"
RECIPES = {"shutter": "tiny_shutter", "aperture": "tiny_aperture"}
Video = NDArray[np.uint8]


def sweeps(axis: str, scenes: int, folder: Path, *, default_law: bool) -> list[list[Video]]:
    """Build the flat clips of some scenes at seven values of an axis; return them by scene, in order of the value.

    Over the default law, those that blur by less than a pixel are left out.
    """
    command = [
        sys.executable,
        "-m",
        "stopdown",
        "build",
        str(ROOT / "examples" / f"{RECIPES[axis]}.toml"),
        "--out",
        str(folder),
    ]
    command += ["--set", "pyramid.0.layers=[7]", "--set", f"pyramid.0.scenes_per_layer={scenes}"]
    if default_law:
        law = AXES[axis].default_law
        command += ["--set", f"axes.{axis}.neutral={law.neutral!r}", "--set", f"axes.{axis}.ratio={law.ratio!r}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    by_scene: dict[str, list[tuple[float, Video]]] = defaultdict(list)
    dataset = Dataset.open(folder)
    plan = WorkingFolder.open(folder).plan
    for clip, row in zip(dataset, dataset.labels.to_pylist(), strict=True):
        value = row[AXES[axis].column]
        if not default_law or blur_px(axis, plan.scene_by_id[row["scene_id"]].spec, value) >= 1.0:
            by_scene[row["scene_id"]].append((value, clip.frames()))
    return [[video for _, video in sorted(clips, key=lambda clip: clip[0])] for _, clips in sorted(by_scene.items())]


def blur_px(axis: str, scene: SceneSpec, value: float) -> float:
    """Return the longest blur, or the widest disc, of a scene in pixels, by its closed form."""
    if axis == "aperture":
        return max((disc.disc_px for disc in expected_discs(scene, value)), default=0.0)
    speeds = [
        math.hypot(*image_velocity_px_per_s(thing, scene.camera, scene.shot, 0.0)) for thing in scene.with_role("subject")
    ]
    return max(speeds, default=0.0) * value


def read(axis: str, video: Video) -> float | None:
    """Return the exposure in seconds, or the widest disc in pixels; None where it cannot be read."""
    reading: Reading = AXES[axis].probe(video, FPS)
    if reading.confidence <= 0:
        return None
    return (
        float(reading.value)
        if reading.value is not None
        else max((detection.size_px for detection in reading.detections), default=None)
    )


def measure(axis: str, scenes: list[list[Video]], through: Callable[[Video], Video]) -> dict[str, float]:
    """Return rank, slope and share of clips read, of a way that clips go through."""
    ranks, slopes, shares = [], [], []
    for videos in scenes:
        before, after = ([read(axis, video) for video in shown] for shown in (videos, [through(video) for video in videos]))
        found = [(place, value) for place, value in enumerate(after) if value is not None]
        pairs = [(np.log2(x), np.log2(y)) for x, y in zip(before, after, strict=True) if x and y]
        shares.append(len(found) / len(videos))
        if len(found) >= 4:
            ranks.append(float(spearmanr(*zip(*found, strict=True)).statistic))
        if len(pairs) >= 4:
            slopes.append(float(np.polyfit(*zip(*pairs, strict=True), 1)[0]))
    return {
        "rank": round(float(np.median(ranks)), 3) if ranks else float("nan"),
        "slope": round(float(np.median(slopes)), 3) if slopes else float("nan"),
        "read": round(float(np.mean(shares)), 3),
    }


def main() -> None:
    """Measure the clips as they are and through each autoencoder; print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vae", nargs="+", type=Path, help="folders of AutoencoderKLWan")
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--default-laws", action="store_true", help="over the axes' own ranges, as far as a pixel shows")
    parser.add_argument("--json", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    ways: dict[str, Callable[[Video], Video]] = {"as rendered": lambda video: video}
    for path in given.vae:
        model = AutoencoderKLWan.from_pretrained(path).float().eval()
        ways[str(path)] = lambda video, model=model: reconstruct(model, video)
    results: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    with tempfile.TemporaryDirectory() as folder:
        for axis in RECIPES:
            scenes = sweeps(axis, given.scenes, Path(folder) / axis, default_law=given.default_laws)
            for name, through in ways.items():
                results[name][axis] = measure(axis, scenes, through)
                print(name, axis, results[name][axis], flush=True)
    told = {"scenes": given.scenes, "default_laws": given.default_laws}
    given.json.write_text(json.dumps({**told, **results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
