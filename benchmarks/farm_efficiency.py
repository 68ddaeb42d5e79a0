"""Two render processes against one, in pairs, and what the scheduling of a clip costs beside its rendering.

    python benchmarks/farm_efficiency.py [--pairs 3] [--scenes 4] [--size 64] [--json FILE]

Both arms of a pair build the same clips, one after the other. Efficiency is the CPU seconds that rendering a clip takes with
one process over those with two: it says what the processes cost each other. The ratio of the walls, wall(1) / (2 wall(2)) from
the first clip begun to the last one done, says what a user of an idle machine gets, and on a busy one what the neighbours left.
The overhead of a clip is the wall time between one clip done and the next one begun by the same process, which is all that is
neither start-up nor rendering, and the CPU time of the parent per clip.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from generator.building.local import blender_version, build
from generator.recipe.load import parse_recipe
from generator.recipe.plan import Plan, make_plan

RESULTS = Path(__file__).parent / "results"
PYRAMIDS = (("shutter", "flyby", 5), ("aperture", "depth_row", 1), ("temperature", "tabletop", 1))
BARS = {"efficiency": 0.95, "overhead_s": 0.005}


@dataclass
class Timeline:
    """A progress that notes by render process when each clip was begun and when it was done, in seconds."""

    begun_s: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    done_s: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    _at: dict[str, int] = field(default_factory=dict)

    def start(self, clips: int, finished: int) -> None:
        """Nothing is finished before."""

    def worker(self, number: int, state: str) -> None:
        """Note the clip that a process begins."""
        if state.startswith("rendering "):
            self.begun_s[number].append(time.perf_counter())
            self._at[state.removeprefix("rendering ")] = number

    def done(self, clip_id: str) -> None:
        """Note its end."""
        self.done_s[self._at[clip_id]].append(time.perf_counter())

    def failed(self, clip_id: str, message: str) -> None:
        """End: every clip must be rendered."""
        raise SystemExit(f"clip {clip_id} failed: {message}")

    def note(self, words: str) -> None:
        """End: a process that died would be in the numbers."""
        raise SystemExit(words)

    def close(self) -> None:
        """Nothing to close."""

    @property
    def wall_s(self) -> float:
        """Seconds from the first clip begun to the last one done."""
        return max(map(max, self.done_s.values())) - min(map(min, self.begun_s.values()))

    @property
    def gaps_s(self) -> list[float]:
        """Seconds between a clip done and the next one begun, of every process."""
        pairs = [(self.begun_s[number][1:], self.done_s[number][:-1]) for number in self.begun_s]
        return [begun - done for begun_s, done_s in pairs for begun, done in zip(begun_s, done_s, strict=True)]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One build: seconds per clip of rendering (CPU) and of the parent (CPU), of the whole (wall), and between clips (wall)."""

    workers: int
    clips: int
    cpu_s_per_clip: float
    parent_cpu_s_per_clip: float
    wall_s: float
    gap_s_mean: float
    gap_s_median: float


def plan(scenes: int, size: int, samples: int) -> Plan:
    """Return a plan of all three families: ten values of so many scenes each."""
    sections = "".join(
        f'[[pyramid]]\naxes = "{axis}"\nfamily = "{family}"\nlayers = 10\nframes = {frames}\nscenes_per_layer = {scenes}\n'
        for axis, family, frames in PYRAMIDS
    )
    text = f'name = "farm-efficiency"\n[video]\nwidth = {size}\nheight = {size}\n[render]\nsamples = {samples}\n{sections}'
    return make_plan(parse_recipe(text, source="farm_efficiency"))


def arm(wanted: Plan, workers: int, folder: Path) -> Arm:
    """Build with so many processes of one thread, and say what it took."""
    timeline = Timeline()
    parent_s = time.process_time()
    report = build(wanted, folder, workers=workers, threads=1, progress=timeline)
    parent_s = time.process_time() - parent_s
    gaps_s = timeline.gaps_s
    return Arm(
        workers=workers,
        clips=report.rendered,
        cpu_s_per_clip=report.cpu_s / report.rendered,
        parent_cpu_s_per_clip=parent_s / report.rendered,
        wall_s=timeline.wall_s,
        gap_s_mean=statistics.fmean(gaps_s),
        gap_s_median=statistics.median(gaps_s),
    )


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--scenes", type=int, default=4, help="scenes of each family, ten clips each")
    parser.add_argument("--size", type=int, default=64, help="pixels of a side")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--json", type=Path, default=RESULTS / "farm_efficiency.json")
    options = parser.parse_args()
    wanted = plan(options.scenes, options.size, options.samples)
    load = os.getloadavg()[0]
    pairs = []
    for number in range(options.pairs):
        order = (1, 2) if number % 2 == 0 else (2, 1)  # what the machine does meanwhile must not favour one arm
        with tempfile.TemporaryDirectory(prefix="stopdown-efficiency-") as folder:
            arms = {workers: arm(wanted, workers, Path(folder) / str(workers)) for workers in order}
        pairs.append((arms[1], arms[2]))
        print(f"pair {number + 1}: efficiency {efficiency(*pairs[-1]):.3f}", flush=True)
    tree = summary(wanted, pairs, options.samples, load)
    options.json.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
    show(tree)


def efficiency(one: Arm, two: Arm) -> float:
    """Return the CPU seconds of a clip with one process over those with two."""
    return one.cpu_s_per_clip / two.cpu_s_per_clip


def summary(wanted: Plan, pairs: list[tuple[Arm, Arm]], samples: int, load: float) -> dict[str, object]:
    """Return what was measured."""
    ratios = [efficiency(*pair) for pair in pairs]
    both = [measured for pair in pairs for measured in pair]
    video = wanted.recipe.video
    return {
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, load {load:.1f} before the first build",
        "bpy": blender_version(),
        "clips": f"{len(wanted.clips)} of {video.width}x{video.height} px, {samples} samples",
        "pairs": len(pairs),
        "efficiency": {"median": statistics.median(ratios), "each": ratios, "bar": BARS["efficiency"]},
        "wall_ratio": {
            "median": statistics.median(one.wall_s / (2 * two.wall_s) for one, two in pairs),
            "each": [one.wall_s / (2 * two.wall_s) for one, two in pairs],
        },
        "overhead_s_per_clip": {
            "gap_mean": statistics.fmean(arm.gap_s_mean for arm in both),
            "gap_median": statistics.median(arm.gap_s_median for arm in both),
            "parent_cpu": statistics.fmean(arm.parent_cpu_s_per_clip for arm in both),
            "bar": BARS["overhead_s"],
        },
        "arms": [[asdict(one), asdict(two)] for one, two in pairs],
    }


def show(tree: dict[str, object]) -> None:
    """Print the table."""
    table = Table(title=f"two processes against one: {tree['clips']}", title_justify="left")
    for heading in ("what", "measured", "bar"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    ratio, wall, overhead = (tree[name] for name in ("efficiency", "wall_ratio", "overhead_s_per_clip"))
    table.add_row("efficiency, CPU seconds of a clip, one / two", f"{ratio['median']:.3f}", f">= {ratio['bar']}")
    table.add_row("wall(1) / (2 wall(2)), with what else ran", f"{wall['median']:.3f}", "")
    table.add_row("between clips, mean, ms", f"{1e3 * overhead['gap_mean']:.2f}", f"<= {1e3 * overhead['bar']:g}")
    table.add_row("between clips, median, ms", f"{1e3 * overhead['gap_median']:.2f}", "")
    table.add_row("CPU of the parent per clip, ms", f"{1e3 * overhead['parent_cpu']:.2f}", f"<= {1e3 * overhead['bar']:g}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
