"""Memory of one render process over 500 clips of 64x64 px: `python benchmarks/worker_memory.py [--clips 500]`.

Writes worker_memory.json (resident memory after each clip) and worker_memory.png (the curve) to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import psutil

from generator.building.local import blender_version, build
from generator.recipe.load import parse_recipe
from generator.recipe.plan import Plan, make_plan

RESULTS = Path(__file__).parent / "results"
VALUES = 10  # clips per scene
PYRAMIDS = (("shutter", "flyby", 5), ("aperture", "depth_row", 1), ("temperature", "tabletop", 1))


class Sampler:
    """A progress that reads the memory of the render process after every clip; there must be one process all along."""

    def __init__(self) -> None:
        self.rss_mb: list[float] = []
        self.pids: set[int] = set()

    def start(self, clips: int, finished: int) -> None:
        """Begin."""
        print(f"{clips} clips")

    def worker(self, number: int, state: str) -> None:
        """Say nothing."""

    def done(self, clip_id: str) -> None:
        """Read the memory."""
        children = psutil.Process().children(recursive=True)
        [worker] = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        self.pids.add(worker.pid)
        self.rss_mb.append(worker.memory_info().rss / 1e6)
        if len(self.rss_mb) % 50 == 0:
            print(f"{len(self.rss_mb)} clips: {self.rss_mb[-1]:.0f} MB", flush=True)

    def failed(self, clip_id: str, message: str) -> None:
        """End: every clip must be rendered."""
        raise SystemExit(f"clip {clip_id} failed: {message}")

    def note(self, words: str) -> None:
        """Print it."""
        print(words)

    def close(self) -> None:
        """Nothing to close."""


def plan(clips: int) -> Plan:
    """Return a plan of all three families with at least so many clips."""
    scenes = -(-clips // (VALUES * len(PYRAMIDS)))
    sections = "".join(
        f'[[pyramid]]\naxes = "{axis}"\nfamily = "{family}"\nlayers = {VALUES}\nframes = {frames}\n'
        f"scenes_per_layer = {scenes}\n"
        for axis, family, frames in PYRAMIDS
    )
    text = f'name = "worker-memory"\n[video]\nwidth = 64\nheight = 64\n[render]\nsamples = 16\n{sections}'
    return make_plan(parse_recipe(text, source="worker_memory"))


def main() -> None:
    """Build, measure and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=500)
    wanted = parser.parse_args().clips
    sampler = Sampler()
    with tempfile.TemporaryDirectory() as folder:
        build(plan(wanted), Path(folder) / "d", workers=1, threads=1, progress=sampler, recycle_clips=wanted * 10)
    if len(sampler.pids) != 1:
        raise SystemExit(f"{len(sampler.pids)} processes rendered; the curve is of one only when none died")
    rss_mb = np.array(sampler.rss_mb)
    settled = rss_mb[len(rss_mb) // 5 :]  # the first fifth holds the first scene of every family
    slope = float(np.polyfit(np.arange(len(settled)), settled, 1)[0]) * 100
    summary = {
        "clips": len(rss_mb),
        "first_mb": round(float(rss_mb[0]), 1),
        "last_mb": round(float(rss_mb[-1]), 1),
        "peak_mb": round(float(rss_mb.max()), 1),
        "mb_per_100_clips": round(slope, 3),
        "bpy": blender_version(),
        "python": platform.python_version(),
        "rss_mb": [round(float(value), 1) for value in rss_mb],
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "worker_memory.json").write_text(json.dumps(summary) + "\n", encoding="utf-8")
    draw(rss_mb, slope)
    print(json.dumps({key: value for key, value in summary.items() if key != "rss_mb"}))


def draw(rss_mb: np.ndarray, slope: float) -> None:
    """Draw the curve from zero, so that flat looks flat and growth looks like growth."""
    figure, axes = plt.subplots(figsize=(7, 3.2), dpi=150)
    axes.plot(np.arange(1, len(rss_mb) + 1), rss_mb, color="#2a5bd7", linewidth=1.2)
    axes.set(xlabel="clips rendered by one process", ylabel="resident memory, MB", ylim=(0, rss_mb.max() * 1.15))
    axes.set_title(f"64x64 px, all three families: {slope:+.2f} MB per 100 clips", fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(RESULTS / "worker_memory.png")


if __name__ == "__main__":
    main()
